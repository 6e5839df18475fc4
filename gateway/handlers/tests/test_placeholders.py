"""What an import could not convert is a placeholder: it refuses every call until it is replaced."""

import json

import pytest

from gateway.tests.http_plane import ask, echo, route, running, upstream_that


@pytest.fixture
async def behind():
    async with upstream_that(echo) as upstream:
        yield upstream


async def test_a_placeholder_refuses_every_call(behind, tmp_path):
    policy = {"type": "placeholder", "options": {"name": "credit-check", "stands_for": "./modules/credit"}}
    routes = [
        route("handler", "/handler", behind.url, handler={"type": "placeholder", "name": "mcp-server"}),
        route("policy", "/policy", behind.url, policies=[policy]),
    ]
    async with running(tmp_path, routes) as plane:
        for path, part in (("/handler", "handler mcp-server"), ("/policy", "policy credit-check")):
            answer = await ask(plane, "GET", path)
            problem = json.loads(answer.body)
            assert (answer.status, problem["reason"]) == (501, "not-configured")
            assert part in problem["detail"]
    assert behind.requests == []
