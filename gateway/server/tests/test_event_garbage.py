"""Connections that deliver events, and jobs, leave nothing to the collector of cycles, however they end."""

import asyncio
import json

import orjson
import pytest

from gateway.handlers import job
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE
from gateway.link.nats import JOBS_BUCKET
from gateway.tests.event_plane import channel, running
from gateway.tests.http_plane import caller_of, eventually
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.tests.raw_socket import closed, frame, read_frame
from gateway.tests.servers import served
from gateway.wire.mqtt.packets import V5, V311

TIMES = 10
CHANNELS = [channel("trades"), channel("market/{symbol}")]
TEXT = 0x81


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane, served(plane, plane.config) as plane.server:
        plane.handlers |= {"job.submit": job.submit, "job.status": job.status}
        yield plane


@pytest.fixture
async def mqtt(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def all_ended(plane):
    await eventually(lambda: not len(plane.connections))
    await asyncio.sleep(0.05)  # what is scheduled by now, as transports that close, has run
    plane.connections.opened.clear()  # as usage does


async def welcomed(caller):
    caller.send(caller.head("GET", "/v1/stream", *HANDSHAKE))
    assert (await caller.answer_head()).status == 101
    await heard(caller, "welcome")


async def heard(caller, kind):
    while True:
        first, payload = await read_frame(caller.reader)
        assert first == TEXT, payload
        if json.loads(payload)["type"] == kind:
            return


async def tell(caller, **members):
    caller.send(frame(json.dumps(members).encode()))


async def use(caller):
    await tell(caller, type="subscribe", channel="trades", **{"from": "latest"})
    await heard(caller, "subscribed")
    await tell(caller, type="publish", channel="trades", data={"price": 1})
    await heard(caller, "event")
    await tell(caller, type="nonsense")
    await heard(caller, "error")
    await tell(caller, type="unsubscribe", channel="trades")
    await heard(caller, "unsubscribed")
    await tell(caller, type="subscribe", channel="market/>", conflate_ms=100)


async def close(caller, plane):
    await closed(caller)


async def abort(caller, plane):
    caller.abort()


async def break_the_protocol(caller, plane):
    caller.send(b"\xff\xff")
    assert await caller.reader.read()


async def send_too_much(caller, plane):
    caller.send(frame(b"x" * (plane.config.stream_message_max_bytes + 1)))
    assert await caller.reader.read()


@pytest.mark.parametrize("end", [close, abort, break_the_protocol, send_too_much])
async def test_a_stream_leaves_no_garbage(plane, garbage, end):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            await welcomed(caller)
            await use(caller)
            await end(caller, plane)
    await all_ended(plane)
    assert not garbage()


async def test_a_stream_that_ends_at_once_leaves_no_garbage(plane, garbage):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            caller.send(caller.head("GET", "/v1/stream", *HANDSHAKE))
            caller.abort()
        async with caller_of(plane) as caller:
            await welcomed(caller)
    await all_ended(plane)
    assert not garbage()


async def test_an_event_stream_leaves_no_garbage(plane, garbage):
    for _ in range(TIMES):
        async with caller_of(plane) as caller, caller_of(plane) as publisher:
            caller.send(caller.head("GET", "/v1/events?channel=trades"))
            assert (await caller.answer_head()).status == 200
            await caller.reader.readuntil(b"retry: 2000")
            answer = await publisher.ask("POST", "/v1/channels/trades/events", body=b'{"price":1}')
            assert answer.status == 201
            await caller.reader.readuntil(b'{"price":1}')
    await all_ended(plane)
    assert not garbage()


async def test_an_event_stream_that_is_refused_leaves_no_garbage(plane, garbage):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            assert (await caller.ask("GET", "/v1/events?channel=nothing/of/it")).status == 404
    await all_ended(plane)
    assert not garbage()


async def test_jobs_leave_no_garbage(plane, garbage):
    plane.change_key(scopes=["jobs:*"])
    await plane.js.delete_key_value(JOBS_BUCKET)
    await plane.js.create_key_value(bucket=JOBS_BUCKET)
    bucket = await plane.js.key_value(JOBS_BUCKET)
    await bucket.put("type.work", orjson.dumps({"name": "work", "schema": None}))
    async with caller_of(plane) as caller:
        for _ in range(TIMES):
            submitted = await caller.ask("POST", "/v1/jobs/work", body=b"{}")
            assert submitted.status == 202, submitted
            assert (await caller.ask("GET", f"/v1/jobs/{json.loads(submitted.body)['id']}")).status == 200
            assert (await caller.ask("GET", "/v1/jobs/none")).status == 404
    await all_ended(plane)
    assert not garbage()


@pytest.mark.parametrize("version", [V311, V5])
async def test_an_mqtt_connection_leaves_no_garbage(mqtt, garbage, version):
    for number in range(TIMES):
        async with client(mqtt, version) as connected:
            await connected.connect(mqtt.key.text, client_id=f"c{number}")
            await connected.subscribe(("trades", 1))
            if number % 2:
                connected.write(b"\xe0\x00")
    await all_ended(mqtt)
    assert not garbage()


@pytest.mark.parametrize("key", [None, "apim_short"])
async def test_a_refused_mqtt_connection_leaves_no_garbage(mqtt, garbage, key):
    for _ in range(TIMES):
        async with client(mqtt, V5) as connected:
            await connected.connect(key)
        async with client(mqtt, V5) as connected:
            connected.write(b"GET / HTTP/1.1\r\n\r\n")
    await all_ended(mqtt)
    assert not garbage()
