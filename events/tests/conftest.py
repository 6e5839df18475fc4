"""Fixtures of events: both planes, and a delivery process that may send to this machine."""

import pytest

from audit.tests.conftest import link, nats_server
from events.tests.delivering import LOOPBACK, delivering
from events.tests.whole import running_whole
from operators.tests.conftest import api, operator

__all__ = ["api", "link", "nats_server", "operator"]


@pytest.fixture
async def whole(link, nats_server, redis_url, tmp_path, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    options = {"outbound_allowed_networks": LOOPBACK, "webhook_timeout_s": 1.5}
    async with running_whole(link, nats_server.url, redis_url, tmp_path, **options) as found:
        yield found


@pytest.fixture
async def delivery(whole):
    async with delivering(whole) as found:
        yield found
