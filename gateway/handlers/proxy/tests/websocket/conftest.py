import pytest

from gateway.handlers.proxy.tests.websocket.support import (
    proxied,
)


@pytest.fixture
async def plane(tmp_path):
    async with proxied(tmp_path) as plane:
        yield plane
