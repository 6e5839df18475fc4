"""What a ``subscribe`` frame delivers: from which position, at which rate, and as long as the right lasts."""

import asyncio

import pytest

from gateway.credentials.api_keys import new_key
from gateway.handlers.stream.tests.stream_client import connected, send
from gateway.log.streams import ensure_stream
from gateway.refusals import Reason
from gateway.tests.event_plane import PEPPER, channel


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


async def test_a_future_position_is_live_with_a_notice(plane):
    last = await send(plane)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": str(2**62)})
        assert (await wire.heard("subscribed"))["id"] == last
        assert (await wire.heard("gap"))["cause"] == "recreated"
        id_ = await send(plane)
        assert (await wire.heard("event"))["id"] == id_


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


async def test_a_reader_that_catches_up_slowly_is_not_too_slow(plane):
    ids = []
    for _ in range(15):
        ids += await asyncio.gather(*(send(plane, data=b"%d" % n) for n in range(200)))
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": "earliest"})
        await wire.heard("subscribed")
        assert [(await wire.heard("event"))["id"] for _ in ids] == sorted(ids)


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


async def test_a_tier_starts_and_stops_to_conflate_on_open_connections_too(plane):
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
