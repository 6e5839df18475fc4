"""What a channel takes, whichever protocol it comes by, and which addresses it has."""

import pytest

from gateway.channels.publication import Publication
from gateway.channels.reading import select
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import channel, running

JPEG = bytes(range(256))
GOOD_TYPES = ("text/plain", "application/octet-stream", "application/json", "image/png")
CHANNELS = [
    channel("json"),
    channel("text", content_type="text", on_invalid="dead-letter"),
    channel("bytes", content_type="bytes"),
    channel("photos", content_type="image/jpeg"),
    channel("reports", content_type="application/vnd.acme+json", schema={"type": "object"}),
    channel("sensors/{id}/{unit}", parameters={"id": {"enum": ["a", "b-c"]}}),
]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        await plane.js.purge_stream("DEAD")
        yield plane


async def refusal(plane, address, data=b"1", content_type="", protocol=Protocol.HTTP):
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish(plane.call(protocol), Publication(address, data, content_type=content_type))
    return refused.value


@pytest.mark.parametrize(
    ("address", "data", "named", "stored"),
    [
        ("json", b"1", "", "application/json"),
        ("json", b"1", "application/vnd.a+json", "application/vnd.a+json"),
        ("text", b"", "", "text/plain"),
        ("text", "ö".encode(), "text/csv", "text/csv"),
        ("bytes", JPEG, "", "application/octet-stream"),
        ("bytes", JPEG, "text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ("bytes", b'{"a":1}', "application/json", "application/json"),
        ("photos", JPEG, "", "image/jpeg"),
        ("photos", JPEG, "Image/JPEG", "Image/JPEG"),
        ("reports", b"{}", "", "application/vnd.acme+json"),
    ],
)
async def test_what_a_channel_takes_is_stored_as_it_is(plane, address, data, named, stored):
    await plane.publisher.publish(plane.call(), Publication(address, data, content_type=named))
    found, _ = plane.snapshot.channel(address)
    (event,) = await plane.log.history(found, found.subject, 0, 10)
    assert (event.data, event.content_type) == (data, stored)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("json", "text/plain"),
        ("json", "application/octet-stream"),
        ("text", "application/json"),
        ("photos", "image/png"),
        ("photos", "application/json"),
        ("reports", "application/json"),
        ("bytes", "jpeg"),
        ("bytes", "image/"),
        ("bytes", "image/jpeg\n"),
        ("bytes", "image/jpeg; a=\x00"),
        ("bytes", "image/" + "j" * 200),
        ("text", "text/"),
        ("text", "text/plain; charset=utf-8\r\nx: y"),
        ("json", "application/json; a=\n"),
        ("photos", "image/jpeg;\n"),
    ],
)
@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.WEBSOCKET, Protocol.MQTT, Protocol.CONNECTOR])
async def test_what_a_channel_does_not_take_is_refused(plane, address, named, protocol):
    refused = await refusal(plane, address, b"{}", named, protocol)
    assert (refused.reason, refused.status, refused.cause) == (Reason.INVALID_PAYLOAD, 415, "content-type")
    assert refused.headers[0][0] == b"accept"
    assert ("is no media type" in refused.detail) == (named not in GOOD_TYPES)


@pytest.mark.parametrize(
    ("address", "data", "named"),
    [("text", JPEG, ""), ("bytes", b"{", "application/json"), ("reports", b"[]", ""), ("json", JPEG, "")],
)
async def test_a_payload_that_is_not_what_its_type_says_is_refused(plane, address, data, named):
    refused = await refusal(plane, address, data, named)
    assert (refused.reason, refused.status) == (Reason.INVALID_PAYLOAD, 422)


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.WEBSOCKET, Protocol.MQTT, Protocol.CONNECTOR])
async def test_a_parameter_has_one_of_the_values_that_its_channel_lists(plane, protocol):
    for address in ("sensors/a/x", "sensors/b-c/y"):
        await plane.publisher.publish(plane.call(protocol), Publication(address, b"1"))
    refused = await refusal(plane, "sensors/c/x", protocol=protocol)
    assert (refused.reason, "one of: a, b-c" in refused.detail) == (Reason.NOT_FOUND, True)
    with pytest.raises(Refused, match="parameter id"):
        select(plane.snapshot, plane.call(protocol), "sensors/c/x")
    assert select(plane.snapshot, plane.call(protocol), "sensors/+/x").channel.address == "sensors/{id}/{unit}"
