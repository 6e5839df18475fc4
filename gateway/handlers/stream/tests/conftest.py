import pytest

from gateway.handlers.stream.tests.stream_client import CHANNELS
from gateway.tests.event_plane import running


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane
