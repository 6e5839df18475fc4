"""Events that are not JSON, on ``/v1/stream``."""

import pytest

from gateway.handlers.stream.tests.stream_client import connected, send

TEXT = {"content_type": "text/plain"}


@pytest.mark.parametrize(
    ("channel", "sent", "delivered"),
    [
        ("text", {"data": "{ON"}, {"data": "{ON", **TEXT}),
        ("text", {"data": "a;b", "content_type": "text/csv"}, {"data": "a;b", "content_type": "text/csv"}),
        ("text", {"data_base64": "T04="}, {"data": "ON", **TEXT}),
        ("bytes", {"data": "ON"}, {"data": "ON", **TEXT}),
        ("bytes", {"data": {"a": [1]}}, {"data": {"a": [1]}}),
        ("bytes", {"data_base64": "/w=="}, {"data_base64": "/w==", "content_type": "application/octet-stream"}),
        ("photos", {"data_base64": "/w=="}, {"data_base64": "/w==", "content_type": "image/jpeg"}),
        ("trades", {"data_base64": "WzFd"}, {"data": [1]}),
    ],
)
async def test_an_event_is_delivered_as_it_was_published(plane, channel, sent, delivered):
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": channel})
        await wire.heard("subscribed")
        wire.say({"type": "publish", "channel": channel, **sent})
        frames = {frame["type"]: frame for frame in (await wire.heard(), await wire.heard())}
        assert frames.keys() == {"event", "published"}
        event = frames["event"]
        assert {name: event[name] for name in event.keys() & {"data", "data_base64", "content_type"}} == delivered


@pytest.mark.parametrize(
    ("channel", "sent", "reason"),
    [
        ("text", {"data": 1}, "invalid-payload"),
        ("text", {"data_base64": "/w=="}, "invalid-payload"),
        ("text", {"data": "1", "content_type": "application/json"}, "invalid-payload"),
        ("trades", {"data": "1", "content_type": "text/plain"}, "invalid-payload"),
        ("trades", {"data_base64": "ew=="}, "invalid-payload"),
        ("photos", {"data_base64": "*"}, "invalid-payload"),
        ("photos", {}, "invalid-request"),
        ("photos", {"data": "", "data_base64": ""}, "invalid-request"),
        ("photos", {"data_base64": "", "content_type": 1}, "invalid-request"),
    ],
)
async def test_an_event_that_its_channel_does_not_take_is_refused_and_the_socket_stays(plane, channel, sent, reason):
    async with connected(plane) as wire:
        wire.say({"type": "publish", "channel": channel, "ref": "1", **sent})
        error = await wire.heard("error")
        assert (error["reason"], error["ref"]) == (reason, "1")
        wire.say({"type": "ping"})
        await wire.heard("pong")


async def test_a_cloudevent_names_its_type(plane):
    async with connected(plane, subprotocols=("cloudevents.json",)) as wire:
        wire.say({"type": "subscribe", "channel": "photos"})
        await wire.heard("subscribed")
        await send(plane, "photos", b"\xff")
        event = await wire.heard()
        assert (event["datacontenttype"], event["data_base64"]) == ("image/jpeg", "/w==")
