"""One connection of ``/v1/stream``: its frames, its credential, and how it ends."""

import asyncio
import contextlib
import json

import pytest

from gateway.credentials.api_keys import new_key
from gateway.handlers.stream.tests.stream_client import connected, send
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import PEPPER


async def test_a_socket_is_welcomed_with_its_connection_and_limits(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 5, "per": 60}])
    async with connected(plane, welcomed=False) as wire:
        welcome = await wire.heard("welcome")
        assert welcome["connection"] == wire.call.connection.id
        assert [limit["metric"] for limit in welcome["limits"]] == ["messages_in"]


async def test_an_event_takes_the_context_of_its_frame_or_of_its_socket_along(plane):
    trace, other = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")
    async with connected(plane, traceparent=other) as wire, connected(plane) as reader:
        reader.say({"type": "subscribe", "channel": "trades"})
        await reader.heard("subscribed")
        for context in ({"traceparent": trace, "tracestate": "a=1"}, {}, {"traceparent": "?", "tracestate": "a=1"}):
            wire.say({"type": "publish", "channel": "trades", "data": 1, **context})
            await wire.heard("published")
        heard = [await reader.heard("event") for _ in range(3)]
        assert [event["traceparent"] for event in heard] == [trace, other, other]
        assert [event.get("tracestate") for event in heard] == ["a=1", None, None]
        wire.say({"type": "publish", "channel": "trades", "data": 1, "tracestate": 5})
        assert (await wire.heard("error"))["detail"] == "`tracestate` is a string."


async def test_ping_is_answered_and_never_counted(plane):
    async with connected(plane) as wire:
        wire.say({"type": "ping"})
        assert await wire.heard() == {"type": "pong"}
        wire.say({"type": "ping", "ref": "7"})
        assert await wire.heard() == {"type": "pong", "ref": "7"}
        assert (wire.call.connection.messages_in, wire.call.connection.messages_out) == (0, 0)


async def test_a_socket_publishes_and_hears_its_id(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        for number in range(300):
            wire.say({"type": "publish", "channel": "trades", "data": {"n": number}, "ref": str(number)})
        frames = [await wire.heard() for _ in range(600)]
        published = [frame for frame in frames if frame["type"] == "published"]
        events = [frame for frame in frames if frame["type"] == "event"]
        assert [event["data"]["n"] for event in events] == list(range(300))
        assert [frame["id"] for frame in published] == [event["id"] for event in events]
        assert [frame["ref"] for frame in published] == [str(n) for n in range(300)]
        assert wire.call.connection.messages_in == 300


async def test_the_credential_is_never_echoed_as_a_subprotocol(plane):
    async with connected(plane, subprotocols=("bearer", "apim_secret")) as wire:
        assert wire.subprotocol == "bearer"
    async with connected(plane, subprotocols=("chat",)) as wire:
        assert wire.subprotocol is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("not json", "invalid-payload"),
        (b"\x00\x01", "invalid-request"),
        ("[]", "invalid-request"),
        ('{"type":"ping","type":"ping"}', "invalid-payload"),
        ("[" * 100, "invalid-payload"),
        ("NaN", "invalid-payload"),
        ({}, "invalid-request"),
        ({"type": "teleport"}, "invalid-request"),
        ({"type": ["ping"]}, "invalid-request"),
        ({"type": "__class__"}, "invalid-request"),
        ({"type": "ping", "ref": 5}, "invalid-request"),
        ({"type": "subscribe"}, "invalid-request"),
        ({"type": "subscribe", "channel": 5}, "invalid-request"),
        ({"type": "subscribe", "channel": "nowhere"}, "not-found"),
        ({"type": "subscribe", "channel": "*"}, "not-found"),
        ({"type": "subscribe", "channel": "a\u0000"}, "invalid-request"),
        ({"type": "subscribe", "channel": "a/#/b"}, "invalid-request"),
        ({"type": "subscribe", "channel": "a/#"}, "not-found"),
        ({"type": "subscribe", "channel": ""}, "invalid-request"),
        ({"type": "subscribe", "channel": "trades", "from": "sometime"}, "invalid-request"),
        ({"type": "subscribe", "channel": "trades", "from": -1}, "invalid-request"),
        ({"type": "subscribe", "channel": "trades", "from": True}, "invalid-request"),
        ({"type": "subscribe", "channel": "trades", "from": "9" * 400}, "invalid-request"),
        ({"type": "publish", "channel": "trades"}, "invalid-request"),
        ({"type": "publish", "channel": "nowhere", "data": 1}, "not-found"),
        ({"type": "publish", "channel": "sensors/a/t", "data": "hot"}, "invalid-payload"),
        ({"type": "publish", "channel": "trades", "data": 1, "dedupe": True}, "invalid-request"),
        ({"type": "publish", "channel": "trades", "data": 1, "traceparent": 1}, "invalid-request"),
        ({"type": "auth"}, "invalid-request"),
        ({"type": "auth", "token": "nonsense"}, "unauthenticated"),
    ],
)
async def test_a_bad_frame_is_an_error_frame_and_the_socket_stays(plane, frame, reason):
    async with connected(plane) as wire:
        wire.say(frame)
        error = await wire.heard("error")
        assert error["reason"] == reason
        assert error["detail"]
        wire.say({"type": "ping"})
        await wire.heard("pong")
        assert sum(wire.call.connection.refusals.values()) == 1


async def test_an_error_names_the_frame_by_its_ref_and_the_fault_by_its_pointer(plane):
    async with connected(plane) as wire:
        wire.say({"type": "publish", "channel": "sensors/a/t", "data": "hot", "ref": "r1"})
        error = await wire.heard("error")
        assert (error["ref"], error["pointer"]) == ("r1", "")


@pytest.mark.parametrize("filler", ["x", "é"])
async def test_a_message_over_the_limit_closes_with_1009(plane, filler):
    most = plane.config.stream_message_max_bytes
    async with connected(plane) as wire:
        wire.say(json.dumps({"type": "ping", "x": filler * (most // len(filler.encode()))}, ensure_ascii=False))
        reply = await wire.serving
    assert (wire.closed[0], json.loads(wire.closed[1])["reason"]) == (1009, "too-large")
    assert (reply.close_code, reply.closed_by, reply.error_class) == (1009, "gateway", "protocol_error")


async def test_dedupe_makes_ref_an_idempotency_key(plane):
    async with connected(plane) as wire:
        frame = {"type": "publish", "channel": "trades", "data": 1, "ref": "k", "dedupe": True}
        wire.say(frame)
        first = await wire.heard("published")
        wire.say(frame)
        assert await wire.heard("published") == first
        wire.say({**frame, "data": 2})
        assert (await wire.heard("error"))["reason"] == "invalid-payload"


async def test_every_digit_of_an_integer_goes_through(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        wire.say('{"type":"publish","channel":"trades","data":{"n":123456789012345678901234567890}}')
        heard = [await wire.heard(), await wire.heard()]
        assert {"n": 123456789012345678901234567890} in [frame.get("data") for frame in heard]


async def test_a_publish_without_the_right_is_refused_and_others_are_untouched(plane):
    plane.change_key(scopes=["subscribe:*", "publish:news"])
    async with connected(plane) as wire:
        wire.say({"type": "publish", "channel": "trades", "data": 1, "ref": "a"})
        assert (await wire.heard("error"))["reason"] == "forbidden"
        wire.say({"type": "publish", "channel": "news", "data": 1, "ref": "b"})
        assert (await wire.heard("published"))["ref"] == "b"


async def test_a_revoked_key_closes_the_socket(plane):
    async with connected(plane) as wire:
        plane.change_key(revoked_at=1.0)
        reply = await wire.serving
    assert wire.closed[0] == 3000
    assert (reply.refused.reason, reply.error_class) == (Reason.KEY_REVOKED, "revoked")


async def test_a_revoked_key_closes_a_socket_whose_reader_loses_the_first_cancellation(plane, monkeypatch):
    requested = asyncio.Event()

    async def deaf(plane, channel, asked_position):
        """Do as ``asyncio.wait_for`` may before Python 3.12: answer, and forget that it was cancelled."""
        requested.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 0

    monkeypatch.setattr("gateway.handlers.stream.filters.resolve", deaf)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await requested.wait()
        plane.change_key(revoked_at=1.0)
        await asyncio.wait_for(asyncio.shield(wire.serving), 20)
    assert wire.closed[0] == 3000


async def test_a_newer_key_of_the_same_consumer_takes_over(plane):
    newer = new_key(PEPPER)
    document = {"id": newer.id, "consumer": "acme", "digest": newer.digest, "scopes": ["subscribe:*"]}
    plane.snapshot.apply([("key", newer.id, document)])
    async with connected(plane) as wire:
        wire.say({"type": "auth", "token": newer.text, "ref": "a"})
        assert (await wire.heard("authenticated"))["ref"] == "a"
        plane.change_key(revoked_at=1.0)
        wire.say({"type": "ping"})
        await wire.heard("pong")
        assert wire.call.caller.key == newer.id


async def test_another_consumers_key_does_not_take_over(plane):
    async with connected(plane) as wire:
        wire.say({"type": "auth", "token": plane.other_key.text})
        assert (await wire.heard("error"))["reason"] == "forbidden"
        assert wire.call.caller.consumer == "acme"


async def test_draining_tells_when_to_be_back_and_closes_with_1012(plane):
    async with connected(plane) as wire:
        wire.call.connection.close(Refused(Reason.DRAINING, retry_after_s=1.5))
        assert (await wire.heard("reconnect"))["by"]
        reply = await wire.serving
    assert (wire.closed[0], json.loads(wire.closed[1])["retry_after_s"]) == (1012, 1.5)
    assert reply.error_class == "drained"


async def test_a_reader_that_never_reads_is_dropped_as_too_slow_and_others_are_unharmed(plane):
    async with connected(plane) as slow, connected(plane) as good:
        for wire in (slow, good):
            wire.say({"type": "subscribe", "channel": "trades"})
            await wire.heard("subscribed")
        slow.is_reading.clear()
        for _ in range(12):
            await asyncio.gather(*(send(plane, data=b"%d" % n) for n in range(100)))
            for _ in range(100):
                await good.heard("event")
        reply = await slow.serving
        assert (slow.closed[0], reply.error_class) == (4408, "too_slow")
        assert not good.serving.done()


async def test_messages_over_the_limit_are_refused_each_and_the_socket_stays(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 2, "per": 3600}])
    async with connected(plane) as wire:
        for number in range(4):
            wire.say({"type": "publish", "channel": "trades", "data": 1, "ref": str(number)})
        frames = [await wire.heard() for _ in range(4)]
        refused = [frame for frame in frames if frame["type"] == "error"]
        assert sorted(frame["ref"] for frame in refused) == ["2", "3"]
        assert all(frame["reason"] == "rate-limited" and frame["retry_after_s"] > 0 for frame in refused)
        assert wire.call.connection.throttled == 2


@pytest.mark.parametrize(
    ("code", "by", "error_class"),
    [
        (1000, "client", ""),
        (1001, "client", ""),
        (1006, "client", "client_gone"),
        (1007, "gateway", "protocol_error"),
        (3008, "gateway", "idle"),
    ],
)
async def test_the_reply_records_how_a_socket_was_closed(plane, code, by, error_class):
    async with connected(plane) as wire:
        wire.leave(code)
        reply = await wire.serving
    assert (reply.status, reply.close_code, reply.closed_by, reply.error_class) == (101, code, by, error_class)


async def test_a_publish_is_answered_when_the_log_is_away(plane, nats_server):
    nats_server.kill()
    try:
        async with connected(plane) as wire:
            wire.say({"type": "publish", "channel": "trades", "data": 1, "ref": "r"})
            error = await wire.heard("error")
            assert (error["reason"], error["ref"]) == ("overloaded", "r")
            assert error["retry_after_s"]
            wire.say({"type": "subscribe", "channel": "trades", "ref": "s"})
            assert (await wire.heard("error"))["ref"] == "s"
    finally:
        nats_server.start()
