from contextlib import asynccontextmanager

import pytest

from gateway.tests.drivers import driver
from gateway.tests.http_plane import echo, route, running, upstream_that

__all__ = ["driver"]


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def is_direct(request):
    return request.param


@pytest.fixture
def served(tmp_path, is_direct):
    """Serve a route with these policies to an upstream that answers so."""

    @asynccontextmanager
    async def serve(*policies, answer=echo, **more):
        fields = {name: more.pop(name) for name in ("methods", "protocol") if name in more}
        async with upstream_that(answer) as upstream:
            routes = [route("echo", "/echo", f"{upstream.url}/echo", policies=list(policies), **fields)]
            async with running(tmp_path, routes, is_direct=is_direct, **more) as plane:
                plane.behind = upstream
                yield plane

    return serve
