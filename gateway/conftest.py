import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.tests import hooks_of_tests
from gateway.tests.nats_server import NatsServer
from gateway.tests.policed import HOOKS
from gateway.tests.valkey_server import ValkeyServer

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


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A counter store that the tests of one module may stop; it is running when a test begins."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    """A client of an empty counter store; it does not try again by itself."""
    client = Redis.from_url(valkey.url, retry=Retry(NoBackoff(), 0))
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def operators_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let policies name the functions of the tests, as those of a module of an operator."""
    monkeypatch.setitem(sys.modules, HOOKS, hooks_of_tests)
    monkeypatch.setenv("HOOK_MODULES", f"demo, {HOOKS}")
    hooks_of_tests.CALLS.clear()
    hooks_of_tests.RELEASED.clear()
    yield
    hooks_of_tests.RELEASED.set()
