import pytest

from gateway.tests.drivers import driver
from gateway.tests.http_plane import echo, upstream_that

__all__ = ["driver"]


@pytest.fixture
async def behind():
    async with upstream_that(echo) as upstream:
        yield upstream
