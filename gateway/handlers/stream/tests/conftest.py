import pytest

from gateway.tests.event_plane import CHANNELS, running


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane
