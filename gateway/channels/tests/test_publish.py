import asyncio
import json

import pytest

from gateway.channels.publication import Publication
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import channel, running

TEMPERATURE = {"type": "object", "required": ["celsius"], "properties": {"celsius": {"type": "number"}}}
CHANNELS = [
    channel("trades"),
    channel("sensors/{id}/temperature", schema=TEMPERATURE),
    channel("strict", schema=TEMPERATURE, on_invalid="dead-letter"),
    channel("mqtt-only", protocols=["mqtt"]),
]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        await plane.js.purge_stream("DEAD")
        yield plane


async def refusal(plane, publication, call=None):
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish(call or plane.call(), publication)
    return refused.value


async def stored(plane, address):
    channel_, _ = plane.snapshot.channel(address)
    return await plane.log.history(channel_, channel_.subject, 0, 1000)


async def letters(plane):
    stream = await plane.js.stream_info("DEAD")
    found = [await plane.js.get_msg("DEAD", n + stream.state.first_seq) for n in range(stream.state.messages)]
    return [(message.subject, json.loads(message.data)) for message in found]


async def test_a_published_event_is_stored_before_it_is_acknowledged(plane):
    call = plane.call(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    done = await plane.publisher.publish(call, Publication("trades", b'{ "n": 1 }'))
    (event,) = await stored(plane, "trades")
    assert (event.id, event.data, event.source, event.type) == (
        done.sequence,
        b'{ "n": 1 }',
        "/consumers/acme",
        "event",
    )
    assert event.traceparent.startswith("00-aaaa")


async def test_the_order_of_publishing_is_the_order_of_ids(plane):
    call = plane.call()
    done = await asyncio.gather(*(plane.publisher.publish(call, Publication("trades", b"%d" % n)) for n in range(300)))
    assert [one.sequence for one in done] == sorted(one.sequence for one in done)
    assert [int(event.data) for event in await stored(plane, "trades")] == list(range(300))


async def test_without_the_right_nobody_learns_whether_there_is_a_channel(plane):
    plane.change_key(scopes=["publish:trades"])
    for address in ("strict", "nowhere", "sensors/*"):
        assert (await refusal(plane, Publication(address, b"1"))).reason is Reason.FORBIDDEN
    await plane.publisher.publish(plane.call(), Publication("trades", b"1"))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere", Reason.NOT_FOUND),
        ("sensors/a/b/temperature", Reason.NOT_FOUND),
        ("sensors/+/temperature", Reason.INVALID_REQUEST),
        ("_apimgmt/dead/x", Reason.INVALID_REQUEST),
        ("$JS/API", Reason.INVALID_REQUEST),
        ("sensors/{id}/temperature", Reason.INVALID_REQUEST),
        ("tra des", Reason.NOT_FOUND),
        ("sensors/\0/temperature", Reason.INVALID_REQUEST),
        ("", Reason.INVALID_REQUEST),
        ("mqtt-only", Reason.FORBIDDEN),
    ],
)
async def test_an_address_that_cannot_be_published_to_is_refused(plane, address, reason):
    assert (await refusal(plane, Publication(address, b"1"))).reason is reason


async def test_an_invalid_event_is_refused_with_its_pointer_and_not_stored(plane):
    refused = await refusal(plane, Publication("sensors/a/temperature", b'{"celsius":"hot"}'))
    assert (refused.reason, refused.members) == (Reason.INVALID_PAYLOAD, {"pointer": "/celsius"})
    assert await stored(plane, "sensors/a/temperature") == []
    assert await letters(plane) == []


@pytest.mark.parametrize(
    ("data", "kept", "pointer"),
    [
        (b'{"celsius":"hot"}', {"data": {"celsius": "hot"}}, "/celsius"),
        (b"\xff\xfe", {"data_base64": "//4="}, ""),
        (b"[" * 1000, {"data_base64": None}, ""),
    ],
)
async def test_an_invalid_event_is_kept_where_the_channel_says_so(plane, data, kept, pointer):
    assert (await refusal(plane, Publication("strict", data))).reason is Reason.INVALID_PAYLOAD
    ((subject, letter),) = await letters(plane)
    assert subject == f"_apimgmt.dead.{CHANNELS[2]['stream']}"
    assert (letter["channel"], letter["address"], letter["consumer"]) == ("strict", "strict", "acme")
    assert (letter["reason"], letter["pointer"], letter["protocol"]) == ("invalid-payload", pointer, "http")
    assert letter["event"].pop("content_type") == "application/json"
    assert letter["event"].keys() == kept.keys()
    if kept.get("data") or kept.get("data_base64"):
        assert letter["event"] == kept
    assert await stored(plane, "strict") == []


async def test_a_dead_letter_says_which_trace_it_was_part_of(plane):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await refusal(plane, Publication("strict", b"{}", traceparent=trace))
    ((_, letter),) = await letters(plane)
    assert letter["event"] == {"data": {}, "traceparent": trace, "content_type": "application/json"}


async def test_a_repeat_with_the_same_key_returns_the_first_id(plane):
    one = await plane.publisher.publish(plane.call(), Publication("trades", b"1", idempotency_key="k"))
    again = await plane.publisher.publish(plane.call(), Publication("trades", b"1", idempotency_key="k"))
    assert again.sequence == one.sequence
    assert len(await stored(plane, "trades")) == 1


async def test_concurrent_repeats_are_stored_once(plane):
    publication = Publication("trades", b"1", idempotency_key="k")
    done = await asyncio.gather(*(plane.publisher.publish(plane.call(), publication) for _ in range(20)))
    assert len({one.sequence for one in done}) == 1
    assert len(await stored(plane, "trades")) == 1


async def test_a_repeat_with_another_body_is_refused(plane):
    await plane.publisher.publish(plane.call(), Publication("trades", b"1", idempotency_key="k"))
    refused = await refusal(plane, Publication("trades", b"2", idempotency_key="k"))
    assert (refused.status, refused.cause) == (422, "idempotency-key-reused")


async def test_a_key_is_of_one_consumer_and_one_address(plane):
    ids = {
        (
            await plane.publisher.publish(
                plane.call(key=key), Publication(address, b'{"celsius":1}', idempotency_key="k")
            )
        ).sequence
        for key in (plane.key, plane.other_key)
        for address in ("trades", "sensors/a/temperature", "sensors/b/temperature")
    }
    assert len(ids) == 6


async def test_an_array_is_stored_in_order_or_not_at_all(plane):
    call = plane.call()
    done = await plane.publisher.publish_all(call, [Publication("trades", b"%d" % n) for n in range(50)])
    assert [event.id for event in await stored(plane, "trades")] == [one.sequence for one in done]
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish_all(call, [Publication("strict", b'{"celsius":1}'), Publication("strict", b"{}")])
    assert refused.value.members == {"pointer": "/1"}
    assert await stored(plane, "strict") == []


async def test_what_a_limit_refuses_is_not_stored(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 2, "per": 3600}])
    call = plane.call(Protocol.WEBSOCKET)
    for _ in range(2):
        await plane.publisher.publish(call, Publication("trades", b"1"))
    refused = await refusal(plane, Publication("trades", b"1"), call)
    assert refused.reason is Reason.RATE_LIMITED
    assert refused.retry_after_s
    assert len(await stored(plane, "trades")) == 2


async def test_a_limit_stops_invalid_events_too(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 2, "per": 3600}])
    call = plane.call(Protocol.WEBSOCKET)
    for _ in range(2):
        assert (await refusal(plane, Publication("strict", b"{}"), call)).reason is Reason.INVALID_PAYLOAD
    assert (await refusal(plane, Publication("strict", b"{}"), call)).reason is Reason.RATE_LIMITED
    assert len(await letters(plane)) == 2


async def test_attributes_of_a_cloudevent_are_kept_and_bounded(plane):
    time = "2026-01-01T00:00:00+01:00"
    attributes = {"id": "mine", "type": "made.é", "subject": "a b", "partitionkey": "p", "time": time}
    await plane.publisher.publish(plane.call(), Publication("trades", b"1", attributes=attributes))
    (event,) = await stored(plane, "trades")
    assert (event.published_id, event.type, event.subject, event.time) == ("mine", "made.é", "a b", time)
    assert event.extensions == {"partitionkey": "p"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"source": "/consumers/bolt"}, {"Bad-Name": "x"}, {"time": "yesterday"}, {"time": "2026-01-01T00:00:00"},
        {"x": "y" * 5000}, {f"x{n}": "y" for n in range(40)}, {"x": ""},
    ],
)  # fmt: skip
async def test_attributes_that_cloudevents_does_not_know_or_that_lie_are_refused(plane, attributes):
    assert (await refusal(plane, Publication("trades", b"1", attributes=attributes))).reason is Reason.INVALID_PAYLOAD


async def test_an_event_larger_than_the_log_takes_is_refused_before_it_is_read(plane):
    data = b'"' + b"x" * plane.log.payload_max_bytes + b'"'
    assert (await refusal(plane, Publication("trades", data))).reason is Reason.TOO_LARGE
    await plane.publisher.publish(plane.call(), Publication("trades", data[: plane.log.payload_max_bytes - 1] + b'"'))
