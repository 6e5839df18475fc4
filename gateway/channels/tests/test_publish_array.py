"""JSON arrays of events: one pass if all are valid, and the same outcome as event by event if one is not."""

import asyncio
import json
from collections import Counter

import pytest

from gateway.channels.publication import EventArray, Publication
from gateway.log.event_log import Stored
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import channel, running

TEMPERATURE = {"type": "object", "required": ["celsius"], "properties": {"celsius": {"type": "number"}}}
CHANNELS = [channel("strict", schema=TEMPERATURE), channel("kept", schema=TEMPERATURE, on_invalid="dead-letter")]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


def array(count, *, address="strict", key=None, faults=()):
    values = [{"celsius": "hot" if number in faults else number} for number in range(count)]
    return EventArray(address, [json.dumps(value).encode() for value in values], values, idempotency_key=key)


async def stored(plane, address="strict"):
    channel_, _ = plane.snapshot.channel(address)
    return await plane.log.history(channel_, channel_.subject, 0, 1000)


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("count", [1, 49, 50, 51, 300])
async def test_every_event_is_stored_in_order_and_its_id_is_returned(plane, count, key):
    call = plane.call(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", tracestate="rojo=1")
    done = await plane.publisher.publish_array(call, array(count, key=key))
    events = await stored(plane)
    assert [event.id for event in events] == [one.sequence for one in done]
    assert [json.loads(event.data)["celsius"] for event in events] == list(range(count))
    one = events[-1]
    assert (one.source, one.type, one.content_type) == ("/consumers/acme", "event", "application/json")
    assert (one.traceparent, one.extensions["tracestate"]) == (call.traceparent, "rojo=1")


async def test_an_array_is_stored_as_its_events_are_one_by_one(plane):
    call = plane.call(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", tracestate="rojo=1")
    await plane.publisher.publish_array(call, array(1))
    await plane.publisher.publish(call, Publication("strict", b'{"celsius": 0}'))
    one, other = await stored(plane)
    assert one.time < other.time
    for event in (one, other):
        event.id, event.time, event.stored_time, event.previous = 0, "", "", 0
    for name in ("channel", "address", "data", "content_type", "type", "source", "traceparent", "extensions"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("fault", [0, 49, 50, 120])
async def test_one_invalid_event_refuses_all_at_its_place(plane, fault):
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish_array(plane.call(), array(121, faults=[fault]))
    assert refused.value.members == {"pointer": f"/{fault}/celsius"}
    assert await stored(plane) == []


async def test_the_invalid_event_is_dead_lettered_and_charged_once(plane, monkeypatch):
    plane.change_tier([{"metric": "messages_in", "amount": 7, "per": 3600}])
    call = plane.call(Protocol.WEBSOCKET)
    before = (await plane.js.stream_info("DEAD")).state.messages
    for is_left in (True, True, False):
        with pytest.raises(Refused) as refused:
            await plane.publisher.publish_array(call, array(3, address="kept", faults=[1]))
        assert (refused.value.reason is Reason.INVALID_PAYLOAD) == is_left
    assert (await plane.js.stream_info("DEAD")).state.messages == before + 2


async def test_a_repeat_of_an_array_with_its_key_stores_nothing_again(plane):
    first = await plane.publisher.publish_array(plane.call(), array(60, key="k"))
    again = await plane.publisher.publish_array(plane.call(), array(60, key="k"))
    assert [one.sequence for one in first] == [one.sequence for one in again]
    assert len(await stored(plane)) == 60
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish_array(plane.call(), array(61, key="k"))
    assert refused.value.cause == "idempotency-key-reused"


async def test_after_a_refusal_of_the_log_no_further_event_is_stored(plane, monkeypatch):
    numbers, write = [], plane.log.write

    def refusing(channel, subject, data, headers, done, **more):
        numbers.append(len(numbers))
        if numbers[-1] == 60:
            done(Refused(Reason.STORAGE_FULL))
        else:
            write(channel, subject, data, headers, done, **more)

    monkeypatch.setattr(plane.log, "write", refusing)
    with pytest.raises(Refused) as refused:
        await plane.publisher.publish_array(plane.call(), array(1000))
    assert refused.value.reason is Reason.STORAGE_FULL
    assert len(numbers) == 100
    monkeypatch.undo()
    assert len(await stored(plane)) == 99


async def test_a_hundred_events_cost_no_task_and_a_handful_of_futures(plane, monkeypatch):
    call = plane.call()
    await plane.publisher.publish_array(call, array(1))
    loop = asyncio.get_running_loop()
    counts = Counter()
    create_future, create_task = loop.create_future, loop.create_task
    monkeypatch.setattr(loop, "create_future", lambda: counts.update(futures=1) or create_future())
    monkeypatch.setattr(loop, "create_task", lambda *a, **k: counts.update(tasks=1) or create_task(*a, **k))
    done = await plane.publisher.publish_array(call, array(100))
    monkeypatch.undo()
    assert all(isinstance(one, Stored) for one in done)
    assert counts["tasks"] == 0
    assert counts["futures"] <= 20, "of the array, of each slice that is written, and of the reader of the link"
