"""Resumable tickets: one stream and its own resumptions, one at a time."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.channels.publication import Publication
from gateway.handlers.tests.tokens.token_clients import closed, heard, say
from gateway.tests.clock import EACH_WAY, Clock
from gateway.tests.event_plane import WAIT_S
from gateway.tests.identity_provider import token

EVENTS = "/v1/events?channel=trades"


@pytest.fixture(autouse=True)
async def no_tickets(plane):
    await plane.redis.flushall()


class Stream:
    """An ``EventSource`` in bytes: what it has read of its answer, and whether that has ended."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.read = b""

    async def until(self, text):
        while text not in self.read:
            part = await asyncio.wait_for(self.reader.read(65536), WAIT_S)
            assert part, self.read
            self.read += part
        return self.read

    async def end(self):
        """Read to the last chunk: the connection is kept for another request."""
        return await self.until(b"\r\n0\r\n\r\n")

    @property
    def status(self):
        return int(self.read.split()[1])

    @property
    def last_id(self):
        return [line[3:].strip() for line in self.read.splitlines() if line.startswith(b"id:")][-1].decode()


@asynccontextmanager
async def stream(plane, ticket, path=EVENTS, **headers):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    url = f"{path}{'&' if '?' in path else '?'}ticket={ticket}"
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([f"GET {url} HTTP/1.1", "host: g", *lines, "", ""]).encode())
    opened = Stream(reader, writer)
    try:
        await opened.until(b"\r\n\r\n")
        yield opened
    finally:
        writer.close()


async def post_ticket(plane, body, text=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    head = ["POST /v1/tickets HTTP/1.1", "host: g", "connection: close", f"content-length: {len(body)}"]
    head.append(f"authorization: Bearer {text or plane.key.text}")
    writer.write("\r\n".join([*head, "", body]).encode())
    answer = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


async def resumable(plane, text=None):
    status, answer = await post_ticket(plane, '{"resumable": true}', text)
    assert (status, answer["expires_in_s"], answer["idle_s"]) == (201, 30, 300)
    return answer["ticket"]


async def publish(plane, *values):
    for value in values:
        await plane.publisher.publish(plane.call(), Publication(address="trades", data=str(value).encode()))


def received(*streams):
    lines = b"".join(each.read for each in streams).splitlines()
    return [int(line[6:]) for line in lines if line.startswith(b"data: ") and line[6:].isdigit()]


async def test_a_stream_resumes_with_its_ticket_and_loses_and_doubles_nothing(plane):
    ticket = await resumable(plane)
    async with stream(plane, ticket) as first:
        await first.until(b"retry: ")
        await publish(plane, 1, 2)
        await first.until(b"data: 2\n\n")
    await publish(plane, 3)
    async with stream(plane, ticket, last_event_id=first.last_id) as second:
        await second.until(b"data: 3\n\n")
        await publish(plane, 4)
        await second.until(b"data: 4\n\n")
    async with stream(plane, ticket, EVENTS + f"&last_event_id={second.last_id}") as third:
        await publish(plane, 5)
        await third.until(b"data: 5\n\n")
    assert received(first, second, third) == [1, 2, 3, 4, 5]


async def test_the_newer_connection_takes_over_before_the_older_is_noticed_as_gone(plane):
    plane.change_tier([{"metric": "open_connections", "amount": 1, "scope": "consumer"}])
    ticket = await resumable(plane)
    async with stream(plane, ticket) as older:
        await older.until(b"retry: ")
        async with stream(plane, ticket) as newer:
            await newer.until(b"retry: ")
            ended = await older.end()
            assert newer.status == 200, "the slot of the older one is free"
            assert b'retry: 3600000\nevent: error\ndata: {"type":"/docs/refusals#taken-over"' in ended
            await publish(plane, 1)
            await newer.until(b"data: 1\n\n")
    assert received(older, newer) == [1]


async def test_a_socket_is_taken_over_too(plane):
    url = f"ws://127.0.0.1:{plane.port}/v1/stream"
    offered = ["bearer", await resumable(plane)]
    async with connect(url, subprotocols=offered, open_timeout=WAIT_S) as older:
        await heard(older, "welcome")
        async with connect(url, subprotocols=offered, open_timeout=WAIT_S) as newer:
            await heard(newer, "welcome")
            assert await closed(older) == (4409, "taken-over")
        async with connect(url, subprotocols=offered, open_timeout=WAIT_S) as again:
            await heard(again, "welcome")
            await say(again, type="auth", token=offered[1])
            assert (await heard(again, "error"))["reason"] == "invalid-request"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (EVENTS + "&channel=news", {}),
        (EVENTS + "&from=earliest", {}),
        ("/feed", {}),
        (EVENTS, {"origin": "https://other.example"}),
    ],
    ids=["channels", "start", "path", "page"],
)
async def test_a_ticket_opens_no_other_stream(plane, path, headers):
    ticket = await resumable(plane)
    async with stream(plane, ticket) as own:
        await own.until(b"retry: ")
        async with stream(plane, ticket, path, **headers) as other:
            assert other.status == 403
        await publish(plane, 1)
        await own.until(b"data: 1\n\n")


async def test_a_proxied_stream_resumes(plane):
    plane.change_key(scopes=["call:feed"])
    ticket = await resumable(plane)
    for _ in range(3):
        async with stream(plane, ticket, "/feed") as opened:
            await opened.until(b"data: first")
            assert opened.status == 200


async def test_a_revoked_key_ends_the_stream_and_its_resumptions(plane):
    ticket = await resumable(plane)
    async with stream(plane, ticket) as opened:
        await opened.until(b"retry: ")
        plane.change_key(revoked_at=time.time())
        assert b"key-revoked" in await opened.end()
    async with stream(plane, ticket) as refused:
        assert refused.status == 401


async def test_rights_and_places_are_checked_at_each_resumption(plane):
    ticket = await resumable(plane)
    async with stream(plane, ticket) as opened:
        await opened.until(b"retry: ")
    for change in ({"scopes": ["subscribe:news"]}, {"allowed_ips": ["192.0.2.0/24"]}):
        plane.change_key(**change)
        async with stream(plane, ticket) as refused:
            assert refused.status == 403
    plane.change_key()
    async with stream(plane, ticket) as opened:
        assert opened.status == 200


async def test_a_ticket_of_a_token_resumes_until_that_expires(plane, an_hour_later):
    ticket = await resumable(plane, token(exp=time.time() + 1800))
    for _ in range(2):
        async with stream(plane, ticket) as opened:
            await opened.until(b"retry: ")
    an_hour_later()
    async with stream(plane, ticket) as refused:
        assert refused.status == 401


async def test_a_ticket_expires_after_its_idle_time(plane, monkeypatch):
    clock = Clock(monkeypatch)
    unused, used = await resumable(plane), await resumable(plane)
    async with stream(plane, used) as opened:
        await opened.until(b"retry: ")
        clock.jump(200)
    async with stream(plane, unused) as refused:
        assert refused.status == 401, "it is opened within 30 s, as any ticket"
    lifetimes = [await plane.redis.ttl(name) for name in await plane.redis.keys("ticket:*")]
    assert 290 <= max(lifetimes) <= 300
    clock.jump(400)
    async with stream(plane, used) as refused:
        assert refused.status == 401


@EACH_WAY
async def test_a_ticket_does_not_outlive_a_clock_that_is_set(plane, monkeypatch, jump_s):
    ticket = await resumable(plane)
    async with stream(plane, ticket) as opened:
        await opened.until(b"retry: ")
    Clock(monkeypatch).jump(jump_s)
    async with stream(plane, ticket) as refused:
        assert refused.status == 401


async def test_without_the_store_a_process_resumes_what_it_has_served(plane, valkey):
    ticket, unused = await resumable(plane), await resumable(plane)
    async with stream(plane, ticket) as older:
        await older.until(b"retry: ")
        valkey.stop()
        async with stream(plane, ticket, last_event_id=older.last_id) as newer:
            await newer.until(b"retry: ")
            assert newer.status == 200
            assert b"taken-over" in await older.end()
        async with stream(plane, ticket, EVENTS + "&from=earliest") as refused:
            assert refused.status == 403
        async with stream(plane, unused) as refused:
            assert refused.status == 503
        valkey.start()


@pytest.mark.parametrize(
    "body", ['{"resumable": 1}', '{"resumable": null}', '{"resumeable": true}', "[]", '"resumable"', "{"]
)
async def test_what_is_asked_of_a_ticket_is_read_strictly(plane, body):
    assert (await post_ticket(plane, body))[0] in (400, 422)


async def test_a_ticket_is_single_use_by_default(plane):
    for body in ("", "{}", '{"resumable": false}'):
        status, answer = await post_ticket(plane, body)
        assert (status, set(answer)) == (201, {"ticket", "expires_in_s"})
        assert answer["ticket"].startswith("tick_")


async def test_the_store_holds_no_usable_ticket(plane):
    ticket = await resumable(plane)
    (name,) = await plane.redis.keys("ticket:*")
    assert ticket.encode() not in name
    assert set(await plane.redis.hgetall(name)) == {b"subject", b"at"}


async def test_a_closed_socket_is_not_an_error(plane):
    """The connection that is taken over may be one whose client is long gone."""
    offered = ["bearer", await resumable(plane)]
    url = f"ws://127.0.0.1:{plane.port}/v1/stream"
    async with connect(url, subprotocols=offered, open_timeout=WAIT_S) as older:
        await heard(older, "welcome")
        older.transport.abort()
        async with connect(url, subprotocols=offered, open_timeout=WAIT_S) as newer:
            await heard(newer, "welcome")
            assert len(plane.connections) == 1
        with pytest.raises(ConnectionClosed):
            await older.recv()
