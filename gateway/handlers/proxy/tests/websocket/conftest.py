import pytest

from gateway.handlers.proxy.tests.websocket.support import (
    proxied,
)


@pytest.fixture
async def plane(tmp_path):
    async with proxied(tmp_path) as plane:
        yield plane


@pytest.fixture(autouse=True)
def driver():
    """Plain calls are few here: they are served as the product does."""
