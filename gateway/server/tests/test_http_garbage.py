"""Calls leave nothing to the collector of cycles: while it runs, all traffic of the process stands."""

import asyncio

import pytest

from gateway.tests.http_plane import NOWHERE, caller_of, echo, eventually, route, running, upstream_that


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/r", b"", 200),
        ("POST", "/r", b"abc", 200),
        ("GET", "/nowhere", b"", 404),
        ("GET", "/lost", b"", 502),
        ("GET", "/v1/me", b"", 200),
    ],
)
async def test_a_call_leaves_no_garbage(tmp_path, garbage, method, path, body, status):
    async with upstream_that(echo) as behind:
        routes = [route("r", "/r", behind.url), route("lost", "/lost", f"http://127.0.0.1:{NOWHERE}")]
        async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
            for _ in range(20):
                assert (await caller.ask(method, path, body=body)).status == status
            assert not garbage()


async def test_a_caller_that_leaves_leaves_no_garbage(tmp_path, garbage):
    async def wait(requested, reader, writer):
        await reader.read()
        return True

    async with upstream_that(wait) as behind, running(tmp_path, [route("r", "/r", behind.url)]) as plane:
        for number in range(1, 6):
            async with caller_of(plane) as caller:
                caller.send(caller.head("GET", "/r"))
                await eventually(lambda number=number: len(behind.requests) == number)
            await eventually(lambda number=number: len(plane.outcomes) == number)
        await asyncio.sleep(0)
        assert not garbage()


async def test_a_connection_that_ends_leaves_no_garbage(tmp_path, garbage):
    async with upstream_that(echo) as behind, running(tmp_path, [route("r", "/r", behind.url)]) as plane:
        for _ in range(5):
            async with caller_of(plane) as caller:
                assert (await caller.ask("GET", "/r")).status == 200
        await eventually(lambda: not plane.server._site.open)
        assert not garbage()
