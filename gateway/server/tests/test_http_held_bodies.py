"""Bodies that are never finished, over real connections."""

import asyncio

from gateway.tests.http_plane import caller_of, eventually, route, running, say, upstream_that
from gateway.tests.policed import policy

HALF = b'{"a":"' + b"a" * 60_000
OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def begin(caller, key=""):
    caller.send(caller.head("POST", "/r", "content-type: application/json", "content-length: 100000", key=key) + HALF)


def serving(folder, url, **settings):
    document = {**route("r", "/r", url), "policies": [policy("validate", schema={"type": "object"})]}
    return running(folder, [document], **settings)


async def test_a_consumers_unfinished_bodies_are_bounded_and_released_when_it_leaves(tmp_path):
    async with (
        upstream_that(say(OK)) as behind,
        serving(tmp_path, behind.url, held_bodies_max_bytes=150_000) as plane,
        caller_of(plane) as first,
        caller_of(plane) as second,
        caller_of(plane) as third,
    ):
        bodies = plane.limiter.held_bodies
        begin(first)
        begin(second)
        await eventually(lambda: bodies.of("acme") == 2 * len(HALF))
        begin(third)
        answer = await third.answer()
        assert (answer.status, answer.header("retry-after")) == (429, "1")
        assert b"Unfinished request bodies" in answer.body
        await eventually(lambda: ("rate-limited", "policy_limit") in plane.outcomes or plane.outcomes)
        assert bodies.of("acme") == 2 * len(HALF)
        async with caller_of(plane) as other:
            body = b'{"a":1}'
            assert (await other.ask("POST", "/r", body=body, key=plane.other_key)).status == 200
        first.abort()
        await eventually(lambda: bodies.of("acme") == len(HALF))
        second.send(b"a" * (100_000 - len(HALF) - 2) + b'"}')
        assert (await second.answer()).status == 200
        await eventually(lambda: bodies.total_bytes == 0)


async def test_bodies_of_all_are_bounded_with_a_reason_of_its_own(tmp_path):
    async with (
        upstream_that(say(OK)) as behind,
        serving(tmp_path, behind.url, held_bodies_process_max_bytes=150_000) as plane,
        caller_of(plane) as first,
        caller_of(plane) as second,
    ):
        begin(first)
        await eventually(lambda: plane.limiter.held_bodies.total_bytes == len(HALF))
        begin(second)
        answer = await second.answer()
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert b"unfinished request bodies" in answer.body


async def test_a_body_that_stops_arriving_is_refused_and_released(tmp_path):
    settings = {"body_rate_grace_s": 0.05, "body_stall_s": 0.05}
    async with (
        upstream_that(say(OK)) as behind,
        serving(tmp_path, behind.url, **settings) as plane,
        caller_of(plane) as caller,
    ):
        begin(caller)
        assert (await caller.answer()).status == 408
        await eventually(lambda: plane.limiter.held_bodies.total_bytes == 0)
        await asyncio.sleep(0)
