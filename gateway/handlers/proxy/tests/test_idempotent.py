"""A proxied POST with an idempotency key is sent once, whatever becomes of its caller (BerriAI/litellm#9551)."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from gateway.durable.first_responses import BODY_MAX_BYTES, Claim, FirstResponses, Record, State
from gateway.link.nats import connect, ensure_infrastructure
from gateway.tests.http_plane import ask, caller_of, echo, eventually, route, running, say, upstream_that

KEY = 'idempotency-key: "k1"'
AI = "/ai/chat/completions"


@pytest.fixture
async def records(nats_server):
    client, js = await connect(nats_server.url, "tests")
    await ensure_infrastructure(js)
    await js.purge_stream("FIRST_RESPONSES")
    records = FirstResponses(js)
    yield records
    await records.stop(0)
    await eventually(lambda: client.is_connected)  # closed while it reconnects, it would cancel this task
    await client.close()


class Gate:
    """An upstream that answers once it is opened."""

    def __init__(self):
        self.opened = asyncio.Event()

    async def __call__(self, requested, reader, writer):
        await self.opened.wait()
        await echo(requested, reader, writer)


@asynccontextmanager
async def proxied(tmp_path, records, answer, **more):
    async with upstream_that(answer) as behind:
        options = {"idempotency": True, **more}
        routes = [
            route("ai", "/ai/{rest...}", f"{behind.url}/{{rest}}", **options),
            route("other", "/other", behind.url),
        ]
        async with running(tmp_path, routes) as plane:
            plane.first_responses = records
            plane.behind = behind
            yield plane


async def post(plane, *lines, body=b"{}", path=AI, key=""):
    return await ask(plane, "POST", path, *(lines or (KEY,)), body=body, key=key)


def reason(answer):
    return answer.status, json.loads(answer.body)["reason"]


async def test_a_repeat_gets_the_first_response_and_nothing_is_sent(tmp_path, records):
    async with proxied(tmp_path, records, echo) as plane:
        first, repeat, bare = await post(plane), await post(plane), await post(plane, "idempotency-key: k1")
        assert (first.status, first.body) == (repeat.status, repeat.body) == (200, b"/chat/completions {}")
        assert bare.body == first.body
        assert (first.header("idempotency-replayed"), repeat.header("idempotency-replayed")) == (None, "true")
        assert len(plane.behind.requests) == 1
        assert plane.behind.requests[0].header("idempotency-key") == ['"k1"']


async def test_another_key_consumer_route_or_none_is_another_request(tmp_path, records):
    async with proxied(tmp_path, records, echo) as plane:
        await post(plane)
        await post(plane, "idempotency-key: k2")
        await post(plane, key=plane.other_key)
        await post(plane, path="/other")
        await post(plane, "x-a: b")
        await post(plane, "x-a: b")
        await ask(plane, "PUT", AI, KEY, body=b"{}")
        assert len(plane.behind.requests) == 7


@pytest.mark.parametrize(("path", "body"), [(AI, b"{ }"), ("/ai/embeddings", b"{}"), (AI + "?a=1", b"{}")])
async def test_a_key_used_for_another_request_is_refused(tmp_path, records, path, body):
    async with proxied(tmp_path, records, echo) as plane:
        await post(plane)
        assert reason(await post(plane, path=path, body=body)) == (422, "invalid-payload")
        assert len(plane.behind.requests) == 1


async def test_a_repeat_during_the_first_is_told_to_come_again(tmp_path, records):
    gate = Gate()
    async with proxied(tmp_path, records, gate) as plane:
        first = asyncio.create_task(post(plane))
        await eventually(lambda: plane.behind.requests)
        repeat = await post(plane)
        assert reason(repeat) == (409, "in-flight")
        assert repeat.header("retry-after") == "1"
        gate.opened.set()
        assert (await first).status == 200
        assert len(plane.behind.requests) == 1


async def test_a_client_that_repeats_a_504_starts_one_generation_and_gets_its_answer(tmp_path, records):
    gate = Gate()
    async with proxied(tmp_path, records, gate, timeouts={"first_byte_s": 0.2}) as plane:
        first = await post(plane)
        assert reason(first) == (504, "upstream-timeout")
        assert "within 0.2 s (first_byte_s)" in json.loads(first.body)["detail"]
        assert int(first.header("retry-after")) >= 1
        assert reason(await post(plane)) == (409, "in-flight")
        gate.opened.set()
        await eventually(lambda: not records.attempts)
        assert (await post(plane)).body == b"/chat/completions {}"
        assert len(plane.behind.requests) == 1


async def test_a_client_that_leaves_and_comes_again_gets_the_answer(tmp_path, records):
    gate = Gate()
    async with proxied(tmp_path, records, gate) as plane:
        async with caller_of(plane) as caller:
            caller.send(caller.head("POST", AI, KEY, "content-length: 2") + b"{}")
            await eventually(lambda: plane.behind.requests)
        await eventually(lambda: plane.outcomes)
        gate.opened.set()
        await eventually(lambda: not records.attempts)
        assert (await post(plane)).body == b"/chat/completions {}"
        assert len(plane.behind.requests) == 1


async def test_a_stream_is_passed_on_as_it_comes_and_repeated_whole(tmp_path, records):
    opened = asyncio.Event()

    async def stream(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: a\n\n\r\n")
        await opened.wait()
        writer.write(b"9\r\ndata: b\n\n\r\n0\r\n\r\n")

    async with proxied(tmp_path, records, stream) as plane:
        async with caller_of(plane) as caller:
            caller.send(caller.head("POST", AI, KEY, "content-length: 2") + b"{}")
            assert (await caller.answer_head()).status == 200
            assert b"data: a" in await caller.reader.readuntil(b"data: a")
            opened.set()
            await caller.reader.readuntil(b"data: b")
        await eventually(lambda: not records.attempts)
        repeat = await post(plane)
        assert (repeat.header("content-type"), repeat.body) == ("text/event-stream", b"data: a\n\ndata: b\n\n")
        assert len(plane.behind.requests) == 1


@pytest.mark.parametrize(
    ("status", "is_kept"), [(201, True), (400, True), (500, True), (502, True), (504, True), (429, False), (503, False)]
)
async def test_a_failure_of_the_upstream_is_kept_unless_it_wants_the_request_again(tmp_path, records, status, is_kept):
    answer = say(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nno")
    async with proxied(tmp_path, records, answer) as plane:
        answers = [await post(plane) for _ in range(3)]
        assert [(answer.status, answer.body) for answer in answers] == [(status, b"no")] * 3
        assert len(plane.behind.requests) == (1 if is_kept else 3)


async def test_a_request_that_may_have_arrived_is_not_sent_again(tmp_path, records):
    async def leave(requested, reader, writer):
        return True

    async with proxied(tmp_path, records, leave) as plane:
        assert reason(await post(plane)) == (502, "upstream-unavailable")
        repeat = await post(plane)
        assert reason(repeat) == (502, "upstream-unavailable")
        assert "not known" in json.loads(repeat.body)["detail"]
        assert len(plane.behind.requests) == 1


async def test_a_request_that_was_not_sent_is_sent_by_its_repeat(tmp_path, records):
    async with (
        upstream_that(echo) as behind,
        running(tmp_path, [route("ai", "/ai/{rest...}", "http://127.0.0.1:9/{rest}", idempotency=True)]) as plane,
    ):
        plane.first_responses = records
        assert reason(await post(plane)) == (502, "upstream-unavailable")
        there = route("ai", "/ai/{rest...}", f"{behind.url}/{{rest}}", idempotency=True)
        plane.snapshot.apply([("route", "ai", there)])
        assert (await post(plane)).status == 200


async def test_a_response_that_is_too_large_to_keep_is_not_sent_for_again(tmp_path, records):
    body = "x" * (BODY_MAX_BYTES + 1)
    answer = say(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}")
    async with proxied(tmp_path, records, answer) as plane:
        assert len((await post(plane)).body) == len(body)
        await eventually(lambda: not records.attempts)
        assert reason(await post(plane)) == (410, "gone")
        assert len(plane.behind.requests) == 1


async def test_a_request_whose_process_ended_is_reported_as_unknown(tmp_path, records, monkeypatch):
    async with proxied(tmp_path, records, echo) as plane:
        claims = []
        claim = records.claim

        async def claimed(*arguments):
            claims.append(arguments)
            return await claim(*arguments)

        monkeypatch.setattr(records, "claim", claimed)
        await post(plane)
        ((record_id, fingerprint),) = claims
        # The first call is recorded as answered only after its answer was sent.
        record, sequence = await records._read(record_id)
        while record.state is State.RUNNING:
            record, sequence = await records._read(record_id)
        await records.write(record_id, Record(fingerprint).encoded(at=1.0), sequence)
        assert reason(await post(plane)) == (502, "upstream-unavailable")
        assert len(plane.behind.requests) == 1


async def test_of_two_claims_one_wins_and_a_released_record_can_be_claimed(records):
    first, second = await asyncio.gather(records.claim("a", "f"), records.claim("a", "f"))
    claim, other = (first, second) if isinstance(first, Claim) else (second, first)
    assert (other.state, other.fingerprint) == (State.RUNNING, "f")
    await claim.settle(None)
    again = await records.claim("a", "g")
    assert isinstance(again, Claim)
    kept = Record("g", State.ANSWERED, 200, [(b"a", b"\xff")], b"\x00\n\xff")
    await again.settle(kept)
    found = await records.claim("a", "g")
    assert (found.status, found.headers, found.body) == (200, kept.headers, kept.body)


async def test_interim_responses_and_trailers_pass_the_first_time(tmp_path, records):
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
    async with proxied(tmp_path, records, say(hints + final)) as plane, caller_of(plane) as caller:
        caller.send(caller.head("POST", AI, KEY, "TE: trailers", "content-length: 2") + b"{}")
        assert (await caller.answer_head()).headers == [("link", "</ai/a>")]
        assert (await caller.answer_head()).status == 200
        assert b"\r\n0\r\nx-sum: 1\r\n\r\n" in await caller.reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: not records.attempts)
        repeat = await post(plane)
        assert (repeat.status, repeat.body, repeat.header("x-sum")) == (200, b"ok", None)


async def test_without_the_store_no_request_with_a_key_is_sent(tmp_path, nats_server, records):
    async with proxied(tmp_path, records, echo) as plane:
        nats_server.kill()
        try:
            assert reason(await post(plane)) == (503, "overloaded")
            assert (await post(plane, "x-a: b")).status == 200
            assert len(plane.behind.requests) == 1
        finally:
            nats_server.start()
