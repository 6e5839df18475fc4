import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from gateway.tests.nats_server import NatsServer

OF_THE_SERVER = ("test_http_", "test_upstream_", "test_proxy_")
"""Modules whose tests run on uvloop, as the server does."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith(OF_THE_SERVER):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS that the tests of one module may kill; it is running when a test begins."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()
