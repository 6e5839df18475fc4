import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import pytest

from gateway.channels.publication import Publication
from gateway.credentials.api_keys import new_key
from gateway.handlers.stream.connection import StreamConnection
from gateway.log.streams import ensure_stream
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import PEPPER, Wire, channel, running

CHANNELS = [channel("trades"), channel("news"), channel("sensors/{id}/t", schema={"type": "number"})]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


@asynccontextmanager
async def connected(plane, *, welcomed=True, **call):
    wire = Wire()
    wire.call = plane.call(Protocol.WEBSOCKET, peer=wire, **call)
    wire.serving = asyncio.create_task(StreamConnection(plane, wire.call).serve(wire))
    if welcomed:
        await wire.heard("welcome")
    try:
        yield wire
    finally:
        wire.is_reading.set()
        wire.leave()
        wire.reply = await wire.serving
        if wire.call.connection:
            plane.connections.closed(wire.call.connection)


async def send(plane, address="trades", data=b"1", **more):
    return str((await plane.publisher.publish(plane.call(), Publication(address, data, **more))).sequence)


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


async def test_a_subscriber_gets_what_is_published(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": "latest", "ref": "s"})
        subscribed = await wire.heard("subscribed")
        assert (subscribed["channel"], subscribed["ref"]) == ("trades", "s")
        id_ = await send(plane, data=b'{"price": 1}', traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        event = await wire.heard("event")
        assert (event["channel"], event["id"], event["data"]) == ("trades", id_, {"price": 1})
        assert event["traceparent"].startswith("00-aaa")
        assert event["time"]
        assert wire.call.connection.messages_out == 1


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


async def test_a_position_resumes_without_hole_or_double(plane):
    ids = [await send(plane, data=b"%d" % n) for n in range(20)]
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": ids[4]})
        assert (await wire.heard("subscribed"))["id"] == ids[4]
        ids.append(await send(plane))
        assert [(await wire.heard("event"))["id"] for _ in range(16)] == ids[5:]


@pytest.mark.parametrize("start", ["earliest", "2020-01-01T00:00:00Z"])
async def test_earliest_and_an_instant_begin_in_the_past(plane, start):
    ids = [await send(plane) for _ in range(3)]
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": start})
        await wire.heard("subscribed")
        assert [(await wire.heard("event"))["id"] for _ in range(3)] == ids


async def test_a_position_that_retention_has_passed_is_a_gap(plane):
    await ensure_stream(plane.js, channel("trades", retention={"max_events": 2}))
    ids = [await send(plane) for _ in range(5)]
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": ids[0]})
        await wire.heard("subscribed")
        gap = await wire.heard("gap")
        assert (gap["from"], gap["to"], gap["cause"]) == (ids[0], ids[3], "retention")
        assert gap["history"] == f"http://gateway.test/v1/channels/trades/events?after={int(ids[3]) - 1}"
        assert (await wire.heard("event"))["id"] == ids[3]


async def test_a_template_or_filter_hears_every_address_it_matches(plane):
    async with connected(plane) as wire:
        for address in ("sensors/{id}/t", "sensors/+/t"):
            wire.say({"type": "subscribe", "channel": address})
            await wire.heard("subscribed")
            await send(plane, "sensors/a/t")
            assert (await wire.heard("event"))["channel"] == "sensors/a/t"
            wire.say({"type": "unsubscribe", "channel": address})
            assert await wire.heard() == {"type": "unsubscribed", "channel": address}
        await send(plane, "sensors/a/t")
        assert await wire.hears_nothing()


async def test_cloudevents_are_given_to_who_offers_their_subprotocol(plane):
    headers = [(b"sec-websocket-protocol", b"cloudevents.json, bearer, secret")]
    async with connected(plane, headers=headers) as wire:
        assert wire.subprotocol == "cloudevents.json"
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        id_ = await send(plane, data=b'{"a":1}')
        event = await wire.heard()
        assert (event["specversion"], event["sequence"], event["data"]) == ("1.0", id_, {"a": 1})


async def test_the_credential_is_never_echoed_as_a_subprotocol(plane):
    async with connected(plane, headers=[(b"sec-websocket-protocol", b"bearer, apim_secret")]) as wire:
        assert wire.subprotocol == "bearer"
    async with connected(plane, headers=[(b"sec-websocket-protocol", b"chat")]) as wire:
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
        ({"type": "subscribe", "channel": "*"}, "invalid-request"),
        ({"type": "subscribe", "channel": "a/#"}, "invalid-request"),
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


async def test_a_future_position_is_live_with_a_notice(plane):
    last = await send(plane)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": str(2**62)})
        assert (await wire.heard("subscribed"))["id"] == last
        assert (await wire.heard("gap"))["cause"] == "recreated"
        id_ = await send(plane)
        assert (await wire.heard("event"))["id"] == id_


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


@pytest.mark.parametrize("loser", ["key", "tier"])
async def test_a_right_that_is_lost_closes_the_socket_that_needs_it(plane, loser):
    async with connected(plane) as wire, connected(plane) as idle:
        for address in ("trades", "news"):
            wire.say({"type": "subscribe", "channel": address})
            await wire.heard("subscribed")
        if loser == "key":
            plane.change_key(scopes=["subscribe:news", "publish:*"])
        else:
            plane.change_tier([], scopes=["subscribe:news", "publish:*"])
        await send(plane, "trades")
        reply = await wire.serving
        assert wire.closed == (3003, '{"reason":"forbidden"}')
        assert (reply.refused.reason, reply.error_class) == (Reason.FORBIDDEN, "revoked")
        assert await wire.hears_nothing()
        # Who does not need it stays, and is refused where he asks for it.
        idle.say({"type": "subscribe", "channel": "trades"})
        assert (await idle.heard("error"))["reason"] == "forbidden"


async def test_a_right_that_is_left_closes_nothing(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        plane.change_tier([], scopes=["subscribe:trades", "publish:*"])
        plane.change_key(scopes=["subscribe:tr*", "publish:*"])
        await send(plane, "trades")
        assert (await wire.heard("event"))["channel"] == "trades"


async def test_a_right_that_is_lost_while_it_is_being_used_is_lost(plane, monkeypatch):
    async def losing(*following, **more):
        plane.change_key(scopes=["publish:*"])
        return await follow(*following, **more)

    follow = plane.hub.subscribe_from
    monkeypatch.setattr(plane.hub, "subscribe_from", losing)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.serving
        assert wire.closed[0] == 3003


async def test_a_credential_that_lacks_what_is_subscribed_to_takes_over_nothing(plane):
    newer = new_key(PEPPER)
    document = {"id": newer.id, "consumer": "acme", "digest": newer.digest, "scopes": ["subscribe:news"]}
    plane.snapshot.apply([("key", newer.id, document)])
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        wire.say({"type": "auth", "token": newer.text})
        await wire.serving
        assert wire.closed[0] == 3003


async def test_a_revoked_key_closes_the_socket(plane):
    async with connected(plane) as wire:
        plane.change_key(revoked_at=1.0)
        reply = await wire.serving
    assert wire.closed[0] == 3000
    assert (reply.refused.reason, reply.error_class) == (Reason.KEY_REVOKED, "revoked")


async def test_a_revoked_key_closes_a_socket_whose_reader_did_not_hear_the_first_word(plane, monkeypatch):
    asked = asyncio.Event()

    async def deaf(plane, channel, asked_position):
        """Do as ``asyncio.wait_for`` may before Python 3.12: answer, and forget that it was cancelled."""
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 0

    monkeypatch.setattr("gateway.handlers.stream.subscriptions.resolve", deaf)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await asked.wait()
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


async def test_a_reader_that_catches_up_slowly_is_not_too_slow(plane):
    ids = []
    for _ in range(15):
        ids += await asyncio.gather(*(send(plane, data=b"%d" % n) for n in range(200)))
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": "earliest"})
        await wire.heard("subscribed")
        assert [(await wire.heard("event"))["id"] for _ in ids] == sorted(ids)


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


async def test_events_over_the_limit_are_held_back_not_lost(plane):
    plane.change_tier([{"metric": "messages_out", "amount": 20, "per": 1, "burst": 5}])
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        ids = [await send(plane) for _ in range(15)]
        frames = []
        while sum(frame["type"] == "event" for frame in frames) < 15:
            frames.append(await wire.heard())
        assert [frame["id"] for frame in frames if frame["type"] == "event"] == ids
        assert any(frame["type"] == "error" and frame["reason"] == "rate-limited" for frame in frames)


async def test_a_route_to_a_channel_subscribes_at_once_and_needs_no_other_right(plane):
    plane.change_key(scopes=["call:tape"])
    plane.snapshot.apply([("route", "tape", {
        "name": "tape", "path": "/ws/tape", "methods": [], "protocol": "websocket",
        "handler": {"type": "channel", "channel": "trades"}, "policies": [],
    })])  # fmt: skip
    (route,) = plane.snapshot.routes()
    async with connected(plane, route=route, parameters={"address": "trades"}) as wire:
        assert (await wire.heard("subscribed"))["channel"] == "trades"
        wire.say({"type": "subscribe", "channel": "news"})
        assert (await wire.heard("error"))["reason"] == "forbidden"


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
async def test_how_a_socket_ended_is_said(plane, code, by, error_class):
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


# Conflation


async def test_a_conflating_subscriber_gets_the_latest_of_what_came_in_an_interval(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "conflate": "300ms"})
        await wire.heard("subscribed")
        ids = [await send(plane, data=str(number).encode()) for number in range(50)]
        events = [await wire.heard("event")]
        while events[-1]["id"] != ids[-1]:
            events.append(await wire.heard("event"))
        assert len(events) < len(ids)
        assert wire.call.connection.messages_out == len(events)


@pytest.mark.parametrize("conflate", ["often", 1, "", True])
async def test_an_interval_that_is_none_is_refused(plane, conflate):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "conflate": conflate})
        assert (await wire.heard("error"))["reason"] == "invalid-request"


# CloudEvents


CLOUDEVENTS = [(b"sec-websocket-protocol", b"cloudevents.json")]
EVENT = {"specversion": "1.0", "id": "e1", "source": "/till/1", "type": "sold", "channel": "trades", "data": {"n": 1}}


async def test_a_cloudevent_is_published_and_delivered_as_one(plane):
    async with connected(plane, headers=CLOUDEVENTS) as wire:
        assert wire.subprotocol == "cloudevents.json"
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        wire.say(EVENT)
        frames = [await wire.heard(), await wire.heard()]
        published = next(frame for frame in frames if frame["type"] == "published")
        event = next(frame for frame in frames if frame["type"] == "sold")
        assert published["ref"] == "e1"
        assert event | EVENT == event
        assert event["sequence"] == published["id"]


async def test_a_cloudevent_with_the_id_and_source_of_another_is_stored_once(plane):
    async with connected(plane, headers=CLOUDEVENTS) as wire:
        wire.say(EVENT)
        wire.say(EVENT)
        first, second = await wire.heard("published"), await wire.heard("published")
        assert first == second
        wire.say(EVENT | {"data": {"n": 2}})
        assert (await wire.heard("error"))["reason"] == "invalid-payload"
        wire.say(EVENT | {"source": "/till/2"})
        assert (await wire.heard("published"))["id"] != first["id"]


async def test_a_cloudevent_is_one_only_on_a_socket_that_speaks_them(plane):
    async with connected(plane) as wire:
        wire.say(EVENT)
        assert "`type` is one of" in (await wire.heard("error"))["detail"]


@pytest.mark.parametrize("change", [{"specversion": "0.3"}, {"id": ""}, {"id": 7}, {"source": None}, {"channel": 1}])
async def test_a_broken_cloudevent_is_refused_and_the_socket_stays(plane, change):
    async with connected(plane, headers=CLOUDEVENTS) as wire:
        wire.say(EVENT | change)
        assert (await wire.heard("error"))["reason"] in ("invalid-payload", "invalid-request")
        wire.say({"type": "ping"})
        await wire.heard("pong")


async def test_a_tier_that_conflates_does_so_for_who_is_connected_too_until_it_does_no_more(plane):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        every = ["publish:*", "subscribe:*"]
        plane.change_tier([], scopes=["publish:*", "subscribe:*?conflate=500ms"])
        ids = [await send(plane, data=b"%d" % number) for number in range(10)]
        assert [(await wire.heard("event"))["id"] for _ in range(2)] == [ids[0], ids[-1]]
        plane.change_tier([], scopes=every)
        await send(plane, data=b"0")
        await wire.heard("event")
        ids = [await send(plane, data=b"%d" % number) for number in range(5)]
        assert [(await wire.heard("event"))["id"] for _ in range(5)] == ids
