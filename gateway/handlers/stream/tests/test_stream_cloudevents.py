"""CloudEvents on ``/v1/stream``, by the subprotocol of the CloudEvents WebSockets binding."""

import pytest

from gateway.handlers.stream.tests.stream_client import connected, send

CLOUDEVENTS = ("cloudevents.json",)
EVENT = {"specversion": "1.0", "id": "e1", "source": "/till/1", "type": "sold", "channel": "trades", "data": {"n": 1}}


async def test_a_client_that_offers_their_subprotocol_receives_cloudevents(plane):
    async with connected(plane, subprotocols=("cloudevents.json", "bearer", "secret")) as wire:
        assert wire.subprotocol == "cloudevents.json"
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        id_ = await send(plane, data=b'{"a":1}')
        event = await wire.heard()
        assert (event["specversion"], event["sequence"], event["data"]) == ("1.0", id_, {"a": 1})


async def test_a_cloudevent_is_published_and_delivered_as_one(plane):
    async with connected(plane, subprotocols=CLOUDEVENTS) as wire:
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
    async with connected(plane, subprotocols=CLOUDEVENTS) as wire:
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
        assert "`type` must be one of" in (await wire.heard("error"))["detail"]


@pytest.mark.parametrize("change", [{"specversion": "0.3"}, {"id": ""}, {"id": 7}, {"source": None}, {"channel": 1}])
async def test_a_broken_cloudevent_is_refused_and_the_socket_stays(plane, change):
    async with connected(plane, subprotocols=CLOUDEVENTS) as wire:
        wire.say(EVENT | change)
        assert (await wire.heard("error"))["reason"] in ("invalid-payload", "invalid-request")
        wire.say({"type": "ping"})
        await wire.heard("pong")
