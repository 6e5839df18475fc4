import pytest

from gateway.tests.drivers import driver
from gateway.tests.garbage import garbage
from gateway.tests.http_plane import echo, route, running, upstream_that

__all__ = ["driver", "garbage"]


@pytest.fixture
async def behind():
    async with upstream_that(echo) as upstream:
        yield upstream


@pytest.fixture
async def plane(behind, tmp_path):
    async with running(tmp_path, [route("echo", "/echo", behind.url + "/echo")]) as plane:
        yield plane
