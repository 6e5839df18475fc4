import pytest

from gateway.tests.http_plane import echo, upstream_that


@pytest.fixture
async def behind():
    async with upstream_that(echo) as upstream:
        yield upstream
