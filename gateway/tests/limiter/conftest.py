from __future__ import annotations

import pytest
from redis.asyncio import Redis

from gateway.limiter import Limiter
from gateway.tests.limiter.support import Clock
from gateway.tests.valkey_server import ValkeyServer


@pytest.fixture
async def limiter(redis):
    limiter = Limiter(redis, owner="process-1")
    await limiter.start()
    yield limiter
    await limiter.stop()


@pytest.fixture
async def other(redis):
    limiter = Limiter(redis, owner="process-2")
    await limiter.start()
    yield limiter
    await limiter.stop()


@pytest.fixture
async def clocked(redis):
    """A limiter for which no time passes but what a test lets pass."""
    clock = Clock()
    limiter = Limiter(redis, owner="process-3", clock=clock)
    yield limiter, clock
    await limiter.stop()


@pytest.fixture
def own_valkey(tmp_path):
    server = ValkeyServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def shaken(own_valkey):
    client = Redis.from_url(own_valkey.url)
    limiter = Limiter(client, owner="process-1")
    await limiter.start()
    yield limiter
    await limiter.stop()
    await client.aclose()
