"""``tee``: answers are published while they are sent, over real sockets, and resumed at another process."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.channels.publisher import Publisher
from gateway.handlers import channel as channel_handlers
from gateway.link.nats import connect, ensure_infrastructure
from gateway.log.event_log import EventLog
from gateway.log.hub import Hub
from gateway.log.streams import delete_stream, ensure_stream
from gateway.policies import BadOption
from gateway.policies.tee import tee
from gateway.schemas.checker import Validators
from gateway.tests.ai_upstream import Model
from gateway.tests.event_plane import channel
from gateway.tests.http_plane import HttpPlane, caller_of, eventually, route, running, upstream_that
from gateway.tests.policed import policy
from gateway.wire.event_stream import EventCutter, data_of

ANSWERS = channel("answers/{call}")
PROMPT = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Go"}]})
TEE = policy("tee", channel="answers/{call}", linger_s=20)


@asynccontextmanager
async def with_events(plane: HttpPlane, nats_server):
    """Add to a plane of requests what channels need."""
    plane.nats, plane.js = await connect(nats_server.url, "test")
    await ensure_infrastructure(plane.js)
    await ensure_stream(plane.js, ANSWERS)
    plane.snapshot.apply([("channel", ANSWERS["address"], ANSWERS)])
    plane.validators = Validators()
    plane.log = EventLog(plane.nats, plane.js)
    plane.hub = Hub(plane.nats, plane.log, plane.snapshot)
    plane.publisher = Publisher(
        plane.config, plane.snapshot, plane.limiter, plane.validators, plane.log, plane.side_threads
    )
    plane.build_path()
    plane.handlers = {**plane.handlers, "events": channel_handlers.events, "history": channel_handlers.history}
    await plane.log.start()
    await plane.hub.start()
    try:
        yield plane
    finally:
        await plane.hub.stop()
        await plane.log.stop()
        await plane.nats.close()


@asynccontextmanager
async def serving(folder, nats_server, model, *policies, processes=1, protocol="http", **settings):
    """Run processes with a route to the model, which they share."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(upstream_that(model.answer))
        routes = [route("ai", "/ai", f"{upstream.url}/v1/chat", protocol=protocol, policies=list(policies))]
        planes = []
        for number in range(processes):
            scopes = ["call:*", "subscribe:*"]
            # Servers of one process share what is served directly: two planes are told apart by ASGI's messages.
            serves = running(folder / str(number), routes, scopes=scopes, is_direct=processes == 1, **settings)
            plane = await stack.enter_async_context(serves)
            planes.append(await stack.enter_async_context(with_events(plane, nats_server)))
        yield planes if processes > 1 else planes[0]
        await delete_stream(planes[0].js, ANSWERS["stream"])


def ask(caller):
    lines = ["content-type: application/json", f"content-length: {len(PROMPT)}"]
    caller.send(caller.head("POST", "/ai", *lines) + PROMPT)


def events_of(body):
    cutter = EventCutter()
    return cutter.cut(body)


def id_of(event):
    return next(int(line[4:]) for line in event.splitlines() if line.startswith(b"id: "))


def resumption(answer):
    """Return the path at which the answer can be resumed."""
    url = urlsplit(answer.header("link").partition(">")[0][1:])
    return f"{url.path}?{url.query}"


async def events_from(caller, path, *lines, is_last):
    """Return the events of a stream until the last one."""
    caller.send(caller.head("GET", path, *lines))
    head = await caller.answer_head()
    assert head.status == 200, (path, await caller.reader.read(300))
    cutter, found = EventCutter(), []
    async with asyncio.timeout(20):
        while not (found and is_last(found[-1])):
            size = int(await caller.reader.readline(), 16)
            part = await caller.reader.readexactly(size + 2)
            found += [event for event in cutter.cut(part[:-2]) if data_of(event)]
    return found


def is_end(event):
    return b"tee.end" in data_of(event)


@pytest.mark.parametrize("protocol", ["http", "sse"])
@pytest.mark.parametrize("shape", ["openai", "anthropic"])
async def test_an_answer_is_published_under_the_ids_that_its_caller_receives(tmp_path, nats_server, protocol, shape):
    model = Model(words=5, shape=shape)
    async with serving(tmp_path, nats_server, model, TEE, protocol=protocol) as plane:
        async with caller_of(plane) as caller:
            ask(caller)
            answer = await caller.answer()
        got = events_of(answer.body)
        assert [data_of(event) for event in got] == [data_of(event) for event in model._events()]
        async with caller_of(plane) as caller:
            seen = await events_from(caller, resumption(answer), is_last=is_end)
        assert [(id_of(event), data_of(event)) for event in seen[:-1]] == [
            (id_of(event), data_of(event)) for event in got
        ]
        assert orjson.loads(data_of(seen[-1])) == {"type": "tee.end", "complete": True}


@pytest.mark.parametrize("protocol", ["http", "sse"])
async def test_a_caller_resumes_at_another_process_without_gaps_or_duplicates(tmp_path, nats_server, protocol):
    model = Model(words=30, pause_s=0.02)
    async with serving(tmp_path, nats_server, model, TEE, protocol=protocol, processes=2) as (first, second):
        async with caller_of(first) as caller:
            ask(caller)
            answer = await caller.answer_head()
            part = b""
            while len(events_of(part)) < 3:
                part += (await caller.reader.readuntil(b"\n\n\r\n")).partition(b"\r\n")[2][:-2]
            got = events_of(part)
            caller.abort()
        last = f"last-event-id: {id_of(got[-1])}"
        async with caller_of(second) as caller:
            rest = await events_from(caller, resumption(answer), last, is_last=is_end)
        data = [data_of(event) for event in [*got, *rest[:-1]]]
        assert data == [data_of(event) for event in model._events()]
        assert orjson.loads(data_of(rest[-1]))["complete"] is True
        assert model.hung_up == 0


async def test_an_abandoned_answer_is_read_only_for_as_long_as_it_lingers(tmp_path, nats_server):
    model = Model(words=5, holds_after=3)
    tee = policy("tee", channel="answers/{call}", linger_s=0.2)
    async with serving(tmp_path, nats_server, model, tee) as plane:
        async with caller_of(plane) as caller:
            ask(caller)
            answer = await caller.answer_head()
            await caller.reader.readuntil(b"\n\n\r\n")
            caller.abort()
        await eventually(lambda: model.hung_up == 1)
        async with caller_of(plane) as caller:
            seen = await events_from(caller, resumption(answer), is_last=is_end)
        assert orjson.loads(data_of(seen[-1]))["complete"] is False


async def test_an_answer_that_cannot_be_published_is_still_sent_and_logged_once(tmp_path, nats_server, caplog):
    model = Model(words=5)
    nowhere = policy("tee", channel="nowhere/{call}")
    async with serving(tmp_path, nats_server, model, nowhere) as plane:
        with caplog.at_level(logging.WARNING, "gateway.policies.tee_exchange"):
            for _ in range(2):
                async with caller_of(plane) as caller:
                    ask(caller)
                    answer = await caller.answer()
                assert answer.body == b"".join(model._events())
                assert answer.header("link") is None
    logged = [record.getMessage() for record in caplog.records if record.name == "gateway.policies.tee_exchange"]
    assert len(logged) == 1
    assert "There is no channel at nowhere/" in logged[0]


async def test_an_answer_that_is_not_an_event_stream_is_sent_unchanged(tmp_path, nats_server):
    model = Model(words=5)
    async with serving(tmp_path, nats_server, model, TEE) as plane, caller_of(plane) as caller:
        body = orjson.dumps({"messages": [], "stream": False})
        answer = await caller.ask("POST", "/ai", "content-type: application/json", body=body)
        assert (answer.body, answer.header("link")) == (orjson.dumps(model._whole()), None)


async def test_a_shadow_publishes_nothing(tmp_path, nats_server):
    model = Model(words=5)
    shadow = policy("tee", "shadow", channel="answers/{call}")
    async with serving(tmp_path, nats_server, model, shadow) as plane:
        before = await plane.log.last(next(iter(plane.snapshot.channels())))
        async with caller_of(plane) as caller:
            ask(caller)
            assert (await caller.answer()).body == b"".join(model._events())
        assert await plane.log.last(next(iter(plane.snapshot.channels()))) == before


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({}, "channel"),
        ({"channel": 5}, "channel"),
        ({"channel": "$SYS/a"}, "channel"),
        ({"channel": "a", "linger_s": -1}, "linger_s"),
        ({"channel": "a", "linger_s": 10**6}, "linger_s"),
        ({"channel": "a", "linger_s": True}, "linger_s"),
        ({"channel": "a", "to": "b"}, "to"),
    ],
)
def test_an_invalid_option_is_refused_by_its_path(options, at):
    with pytest.raises(BadOption) as refused:
        tee(options)
    assert refused.value.at == at
