import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest

from gateway.log.event_log import DEADLINE_S, refusal
from gateway.log.streams import delete_stream, ensure_stream, stream_config
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import channel, running

TRADES = channel("trades")
SENSORS = channel("sensors/{id}/t")


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [TRADES, SENSORS]) as plane:
        yield plane


@pytest.fixture
def trades(plane):
    return plane.snapshot.channel("trades")[0]


async def store(plane, channel, *numbers, subject="trades"):
    return [(await plane.log.publish(channel, subject, b"%d" % number, {})).sequence for number in numbers]


async def test_what_was_acknowledged_can_be_read(plane, trades):
    ids = await store(plane, trades, 1, 2, 3)
    events = await plane.log.history(trades, "trades", 0, 10)
    assert [event.id for event in events] == ids
    assert [event.data for event in events] == [b"1", b"2", b"3"]
    assert all(one < other for one, other in pairwise(ids))


async def test_many_publishes_in_flight_keep_their_order(plane, trades):
    stored = await asyncio.gather(*(plane.log.publish(trades, "trades", b"%d" % n, {}) for n in range(500)))
    assert [one.sequence for one in stored] == sorted(one.sequence for one in stored)
    events = await plane.log.history(trades, "trades", 0, 1000)
    assert [int(event.data) for event in events] == list(range(500))


async def test_history_is_read_page_by_page_without_hole(plane, trades):
    ids = await store(plane, trades, *range(25))
    seen, after = [], 0
    while True:
        batch = await plane.log.batch(trades, "trades", after, 10)
        seen += [event.id for event in batch.events]
        after = seen[-1]
        if not batch.pending:
            break
    assert seen == ids


async def test_a_batch_is_bounded_by_bytes_and_says_what_is_left(plane, trades):
    for _ in range(10):
        await plane.log.publish(trades, "trades", b"x" * 1000, {})
    batch = await plane.log.batch(trades, "trades", 0, 10, max_bytes=3000)
    assert 1 <= len(batch.events) < 10
    assert batch.pending == 10 - len(batch.events)


async def test_one_parameter_values_history_leaves_out_the_others(plane):
    sensors, _ = plane.snapshot.channel("sensors/a/t")
    for name in ("a", "b", "a", "b"):
        await plane.log.publish(sensors, f"sensors.{name}.t", name.encode(), {})
    assert [event.address for event in await plane.log.history(sensors, "sensors.a.t", 0, 10)] == ["sensors/a/t"] * 2
    assert len(await plane.log.history(sensors, "sensors.*.t", 0, 10)) == 4


async def test_ids_of_a_new_stream_begin_at_the_microseconds_of_its_making(plane, trades):
    before = await plane.log.extent(trades)
    assert before.first == before.last + 1
    assert before.first == before.began_at
    assert abs(before.began_at / 1_000_000 - time.time()) < 60
    (first,) = await store(plane, trades, 1)
    assert first == before.began_at
    assert await plane.log.first(trades) == await plane.log.last(trades) == first


async def test_a_recreated_stream_never_gives_an_id_again(plane, trades):
    (before,) = await store(plane, trades, 1)
    await delete_stream(plane.js, trades.stream)
    (after,) = await store(plane, trades, 2)
    assert after > before


async def test_retention_by_count_moves_the_oldest_id(plane):
    few = channel("trades", retention={"max_events": 3, "max_age_s": 60})
    await ensure_stream(plane.js, few)
    trades, _ = plane.snapshot.channel("trades")
    ids = await store(plane, trades, *range(5))
    extent = await plane.log.extent(trades)
    assert (extent.first, extent.last) == (ids[2], ids[4])
    assert (await plane.js.stream_info(few["stream"])).config.duplicate_window == 60


async def test_the_first_event_since_an_instant_is_found(plane, trades):
    ids = await store(plane, trades, 1, 2)
    assert await plane.log.sequence_at(trades, datetime.now(UTC) - timedelta(days=1)) == ids[0]
    assert await plane.log.sequence_at(trades, datetime.now(UTC) + timedelta(days=1)) == ids[-1] + 1


async def test_the_same_message_id_is_stored_once(plane, trades):
    first = await plane.log.publish(trades, "trades", b"1", {}, "k")
    again = await plane.log.publish(trades, "trades", b"1", {}, "k")
    assert (again.sequence, first.duplicate, again.duplicate) == (first.sequence, False, True)


async def test_a_log_that_hangs_is_refused_and_taken_up_again_when_it_is_back(plane, trades, nats_server):
    await store(plane, trades, 1)
    nats_server.freeze()
    try:
        with pytest.raises(Refused) as refused:
            await plane.log.publish(trades, "trades", b"2", {})
        assert refused.value.reason is Reason.OVERLOADED
        assert refused.value.retry_after_s
        with pytest.raises(Refused):
            await plane.log.history(trades, "trades", 0, 10)
    finally:
        nats_server.thaw()
    while True:
        try:
            await store(plane, trades, 3)
            break
        except Refused:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_silent_log_is_waited_for_once_and_probed_until_it_replies(plane, trades, nats_server, is_frozen):
    await store(plane, trades, 1)
    if is_frozen:
        nats_server.freeze()
    else:
        nats_server.kill()
    with pytest.raises(Refused):
        await plane.log.history(trades, "trades", 0, 10)
    with pytest.raises(Refused) as refused:
        plane.log.require_available()
    assert refused.value.retry_after_s
    plane.log.require_available(DEADLINE_S)  # a publish waits longer
    with pytest.raises(Refused):
        await plane.log.publish(trades, "trades", b"2", {})
    with pytest.raises(Refused):
        plane.log.require_available(DEADLINE_S)
    if is_frozen:
        nats_server.thaw()
    else:
        nats_server.start()
    while True:  # though nobody calls it
        try:
            plane.log.require_available()
            break
        except Refused:
            await asyncio.sleep(0.05)


async def test_a_publish_waits_for_a_log_that_is_restarting_and_is_kept(plane, trades, nats_server):
    (before,) = await store(plane, trades, 1)
    nats_server.kill()
    while plane.nats.is_connected:
        await asyncio.sleep(0.01)
    publish = asyncio.create_task(store(plane, trades, 2))
    await asyncio.sleep(0)
    nats_server.start()
    (after,) = await publish
    assert [event.id for event in await plane.log.history(trades, "trades", 0, 10)] == [before, after]


async def test_what_may_be_repeated_is_when_the_link_was_lost_on_the_way(plane, trades, nats_server):
    (stored,) = await store(plane, trades, 1)
    nats_server.kill()
    nats_server.start()
    # The client does not know yet: these are written to a dead link.
    again = await plane.log.publish(trades, "trades", b"2", {}, "k")
    assert [event.id for event in await plane.log.history(trades, "trades", 0, 10)] == [stored, again.sequence]


async def test_a_publish_lost_on_the_way_is_refused_and_can_be_repeated(plane, trades, nats_server):
    await store(plane, trades, 1)
    nats_server.kill()
    nats_server.start()
    with pytest.raises(Refused) as refused:
        await store(plane, trades, 2)
    assert refused.value.reason is Reason.OVERLOADED
    assert await store(plane, trades, 2)


async def test_a_stream_that_is_missing_is_made_on_the_way(plane, trades):
    await delete_stream(plane.js, trades.stream)
    assert await plane.log.history(trades, "trades", 0, 10) == []
    await delete_stream(plane.js, trades.stream)
    assert (await plane.log.extent(trades)).first
    await delete_stream(plane.js, trades.stream)
    assert await store(plane, trades, 1)


async def test_an_event_larger_than_the_log_takes_is_refused(plane, trades):
    with pytest.raises(Refused) as refused:
        await plane.log.publish(trades, "trades", b"x" * (plane.nats.max_payload + 1), {})
    assert refused.value.reason is Reason.TOO_LARGE


async def test_what_the_stream_finds_too_large_is_said_so(plane, trades):
    config = stream_config(TRADES)
    config.max_msg_size = 10
    await plane.js.update_stream(config, first_seq=(await plane.js.stream_info(TRADES["stream"])).config.first_seq)
    with pytest.raises(Refused) as refused:
        await plane.log.publish(trades, "trades", b"x" * 100, {})
    assert refused.value.reason is Reason.TOO_LARGE


async def test_what_a_document_changes_is_changed_and_nothing_is_lost(plane, trades):
    (kept,) = await store(plane, trades, 1)
    await ensure_stream(plane.js, channel("trades", title="All trades", retention={"max_age_s": 3600}))
    config = (await plane.js.stream_info(TRADES["stream"])).config
    assert (config.description, config.max_age) == ("All trades", 3600)
    assert [event.id for event in await plane.log.history(trades, "trades", 0, 10)] == [kept]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"err_code": 10047, "description": "insufficient storage resources available"}, Reason.STORAGE_FULL),
        ({"err_code": 10077, "description": "no space left on device"}, Reason.STORAGE_FULL),
        ({"err_code": 10008, "description": "JetStream system temporarily unavailable"}, Reason.OVERLOADED),
    ],
)
def test_a_full_store_is_told_from_one_that_is_away(error, reason):
    with pytest.raises(Refused) as refused:
        raise refusal(error)
    assert refused.value.reason is reason


async def test_before_the_disk_is_full_nothing_more_is_published_and_reads_go_on(plane, trades):
    (first,) = await store(plane, trades, 1)
    plane.log._disk = SimpleNamespace(is_full=True)
    with pytest.raises(Refused) as refused:
        await store(plane, trades, 2)
    assert refused.value.reason is Reason.STORAGE_FULL
    assert [event.id for event in await plane.log.history(trades, "trades", 0, 10)] == [first]
    plane.log._disk = SimpleNamespace(is_full=False)
    (second,) = await store(plane, trades, 2)
    assert second == first + 1
