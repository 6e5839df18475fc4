"""Live events fanned out to readers, and what they missed read back, over a real NATS."""

import asyncio

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.log.catch_up import BATCH_EVENTS, BUFFERED_MAX, EARLIEST, Gap
from gateway.log.streams import delete_stream, ensure_stream
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import QUIET_S, channel, running

TRADES, NEWS, SENSORS = channel("trades"), channel("news/{topic}"), channel("sensors/{id}/t")


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [TRADES, NEWS, SENSORS]) as plane:
        yield plane


@pytest.fixture
def trades(plane):
    return plane.snapshot.channel("trades")[0]


class Reader:
    """Keeps what was delivered to it."""

    def __init__(self):
        self.ids, self.addresses, self.gaps, self.began = [], [], [], []
        self._came = asyncio.Event()

    def deliver(self, event):
        self.ids.append(event.id)
        self.addresses.append(event.address)
        self._came.set()

    async def has(self, id_):
        async with asyncio.timeout(30):
            while not self.ids or self.ids[-1] < id_:
                self._came.clear()
                await self._came.wait()

    async def follow(self, plane, channel, position, subject=None, **more):
        return await plane.hub.subscribe_from(
            channel,
            subject or channel.subject,
            position,
            self.deliver,
            began=self.began.append,
            on_gap=self.gaps.append,
            **more,
        )


async def store(plane, channel, count, subject="trades"):
    stored = await asyncio.gather(*(plane.log.publish(channel, subject, b"%d" % n, {}) for n in range(count)))
    return [one.sequence for one in stored]


async def all_ids(plane, channel):
    ids, after = [], 0
    while True:
        batch = await plane.log.batch(channel, channel.subject, after, 1000)
        ids += [event.id for event in batch.events]
        if not batch.pending:
            return ids
        after = ids[-1]


async def test_a_reader_hears_what_comes_next(plane, trades):
    await store(plane, trades, 3)
    reader = Reader()
    listener = await reader.follow(plane, trades, None)
    ids = await store(plane, trades, 5)
    await reader.has(ids[-1])
    listener.stop()
    assert reader.ids == ids
    assert reader.began == [ids[0] - 1]


async def test_a_reader_from_a_position_gets_the_stored_then_the_live_without_hole_or_double(plane, trades):
    stored = await store(plane, trades, 3 * BUFFERED_MAX)
    is_over = False
    last = 0

    async def publish():
        nonlocal last
        while not is_over:
            last = (await store(plane, trades, 20))[-1]

    publishing = asyncio.create_task(publish())
    readers = [Reader() for _ in range(8)]
    for number, reader in enumerate(readers):
        await reader.follow(plane, trades, stored[number * 50])
        await asyncio.sleep(0)
    for reader in readers:
        await reader.has(stored[-1] + 200)
    is_over = True
    await publishing
    for reader in readers:
        await reader.has(last)
    everything = await all_ids(plane, trades)
    for number, reader in enumerate(readers):
        assert reader.ids == [id_ for id_ in everything if id_ > stored[number * 50]]
        assert reader.gaps == []


async def test_readers_of_one_filter_share_one_subscription(plane, trades):
    before = len(plane.nats._subs)
    listeners = [await Reader().follow(plane, trades, None) for _ in range(5)]
    assert len(plane.nats._subs) == before + 1
    for listener in listeners:
        listener.stop()
    await asyncio.sleep(QUIET_S)
    assert len(plane.nats._subs) == before


async def test_a_template_hears_all_its_addresses_and_an_address_only_its_own(plane):
    sensors, _ = plane.snapshot.channel("sensors/a/t")
    every, one = Reader(), Reader()
    await every.follow(plane, sensors, EARLIEST)
    await one.follow(plane, sensors, EARLIEST, "sensors.a.t")
    for name in ("a", "b", "a"):
        last = await store(plane, sensors, 1, f"sensors.{name}.t")
    await every.has(last[0])
    await one.has(last[0])
    assert every.addresses == ["sensors/a/t", "sensors/b/t", "sensors/a/t"]
    assert one.addresses == ["sensors/a/t"] * 2


async def test_a_listener_across_channels_hears_them_all(plane, trades):
    news, _ = plane.snapshot.channel("news/x")
    heard = []
    listener = plane.hub.subscribe_live(">", heard.append)
    await asyncio.sleep(QUIET_S)
    await store(plane, trades, 1)
    await store(plane, news, 1, "news.x")
    async with asyncio.timeout(20):
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    listener.stop()
    assert {(event.channel, event.address) for event in heard} == {("trades", "trades"), ("news/{topic}", "news/x")}


async def test_what_is_stored_while_the_link_is_down_is_made_good(plane, trades, nats_server, tmp_path):
    reader = Reader()
    await reader.follow(plane, trades, None)
    first = await store(plane, trades, 3)
    await reader.has(first[-1])
    # Cut this link alone: another publisher goes on meanwhile.
    async with running(nats_server.url, tmp_path, []) as other:
        blocked = asyncio.Event()
        connect = plane.nats._select_next_server

        async def held_back():
            await blocked.wait()
            await connect()

        plane.nats._select_next_server = held_back
        plane.nats._transport.close()
        while plane.nats.is_connected:
            await asyncio.sleep(0.01)
        missed = await store(other, trades, 700)
        blocked.set()
        await reader.has(missed[-1])
        after = await store(other, trades, 3)
        await reader.has(after[-1])
    assert reader.ids == [*first, *missed, *after]


async def test_readers_go_on_when_nats_was_killed_and_started(plane, trades, nats_server):
    reader = Reader()
    await reader.follow(plane, trades, None)
    before = await store(plane, trades, 3)
    nats_server.kill()
    while plane.nats.is_connected:
        await asyncio.sleep(0.01)
    nats_server.start()
    after = await store(plane, trades, 3)
    await reader.has(after[-1])
    assert reader.ids == [*before, *after]


class Held:
    """Holds up the handling of a feed's live messages, so that its subscription has to drop what does not fit."""

    def __init__(self, feed, room):
        self._subscription = feed._subscription
        self._handle = self._subscription._cb
        self._may_handle = asyncio.Event()
        self._subscription._cb = self._wait
        self._subscription._pending_queue._maxsize = room
        self._came = self._subscription.delivered

    async def _wait(self, message):
        await self._may_handle.wait()
        await self._handle(message)

    async def until_dropped(self, stored):
        """Return once NATS has sent every stored event, of which all but the first few were dropped."""
        async with asyncio.timeout(30):
            while self._subscription.delivered < self._came + stored:
                await asyncio.sleep(0.01)

    async def let_go(self):
        """Return once what was kept has been handled."""
        self._may_handle.set()
        async with asyncio.timeout(30):
            await self._subscription._pending_queue.join()
        self._subscription._pending_queue._maxsize = 1000


async def with_a_dropped_range(plane, trades, reader):
    """Return the feed of a reader that was delivered the first three of 500 events, and the ids of all."""
    listener = await reader.follow(plane, trades, None)
    await stop_tasks(plane.hub._checker)  # the test itself decides when the feed checks for dropped messages
    ids = await store(plane, trades, 1)
    await reader.has(ids[-1])
    held = Held(listener.feed, room=1)
    first = await store(plane, trades, 1)  # in the handler's hands
    async with asyncio.timeout(30):
        while listener.feed._subscription.pending_msgs or listener.feed._subscription.delivered < 2:
            await asyncio.sleep(0.01)
    ids += first + await store(plane, trades, 499)
    await held.until_dropped(500)
    await held.let_go()
    assert reader.ids == ids[:3]
    return listener.feed, ids


async def test_what_the_subscription_had_to_drop_is_read_from_the_log(plane, trades):
    reader = Reader()
    feed, ids = await with_a_dropped_range(plane, trades, reader)
    feed.check()
    await reader.has(ids[-1])
    assert (reader.ids, reader.gaps) == (ids, [])


async def test_the_next_live_event_shows_that_others_before_it_were_dropped(plane, trades):
    reader = Reader()
    _, ids = await with_a_dropped_range(plane, trades, reader)
    ids += await store(plane, trades, 1)
    await reader.has(ids[-1])
    assert (reader.ids, reader.gaps) == (ids, [])


async def test_a_reader_that_joins_while_the_feed_catches_up_hears_nothing_twice(plane, trades):
    first, late = Reader(), Reader()
    listener = await first.follow(plane, trades, None)
    ids = await store(plane, trades, 600)
    await first.has(ids[-1])
    listener.has_room = lambda: False  # so that the feed comes last
    listener.feed._positions[trades.stream] = ids[0]
    listener.feed._recover(trades.stream, ids[0])
    await late.follow(plane, trades, ids[0])
    ids += await store(plane, trades, 3)
    await late.has(ids[-1])
    async with asyncio.timeout(30):
        while listener.feed._recovering:
            await asyncio.sleep(0.01)
    assert late.ids == ids[1:]


async def test_a_reader_without_room_is_waited_for(plane, trades):
    ids = await store(plane, trades, 1000)
    reader, has_room = Reader(), False
    listener = await reader.follow(plane, trades, EARLIEST, has_room=lambda: has_room)
    await asyncio.sleep(QUIET_S)
    assert 0 < len(reader.ids) < len(ids)
    has_room = True
    await reader.has(ids[-1])
    assert reader.ids == ids
    listener.stop()


async def test_a_stream_that_was_recreated_is_a_gap_to_who_listens(plane, trades, nats_server):
    reader = Reader()
    await reader.follow(plane, trades, None)
    before = await store(plane, trades, 1)
    await reader.has(before[-1])
    await delete_stream(plane.js, trades.stream)
    await ensure_stream(plane.js, TRADES)
    plane.nats._transport.close()
    async with asyncio.timeout(30):
        while not reader.gaps:
            await asyncio.sleep(0.01)
    after = await store(plane, trades, 1)
    await reader.has(after[-1])
    assert [gap.cause for gap in reader.gaps] == ["recreated"]
    assert reader.ids == [*before, *after]


async def test_a_position_older_than_retention_is_a_gap_and_begins_at_the_oldest(plane, trades):
    await ensure_stream(plane.js, channel("trades", retention={"max_events": 3}))
    ids = await store(plane, trades, 6)
    reader = Reader()
    await reader.follow(plane, trades, ids[0])
    await reader.has(ids[-1])
    assert reader.ids == ids[3:]
    assert reader.gaps == [Gap(ids[0], ids[3], "retention")]


async def test_a_reader_is_refused_while_the_log_is_away(plane, trades, nats_server):
    nats_server.kill()
    try:
        with pytest.raises(Refused) as refused:
            await Reader().follow(plane, trades, None)
        assert refused.value.reason is Reason.OVERLOADED
    finally:
        nats_server.start()


@pytest.mark.parametrize("is_oldest", [False, True])
async def test_what_retention_takes_from_a_slow_reader_while_it_catches_up_is_a_gap(plane, trades, is_oldest):
    await ensure_stream(plane.js, channel("trades", retention={"max_events": 400}))
    ids = await store(plane, trades, 400)
    reader, has_room = Reader(), False
    await reader.follow(plane, trades, EARLIEST if is_oldest else ids[0] - 1, has_room=lambda: has_room)
    await reader.has(ids[BATCH_EVENTS - 1])
    ids += await store(plane, trades, 300)
    has_room = True
    await reader.has(ids[-1])
    assert reader.gaps == [Gap(ids[BATCH_EVENTS - 1], ids[300], "slow-reader")]
    assert reader.ids == ids[:BATCH_EVENTS] + ids[300:]


async def test_holes_that_other_addresses_leave_are_no_gap(plane):
    sensors, _ = plane.snapshot.channel("sensors/a/t")
    first = await store(plane, sensors, 1, "sensors.a.t")
    for _ in range(3):
        await store(plane, sensors, 20, "sensors.b.t")
        last = await store(plane, sensors, BATCH_EVENTS, "sensors.a.t")
    reader = Reader()
    await reader.follow(plane, sensors, first[0], "sensors.a.t")
    await reader.has(last[-1])
    assert (len(reader.ids), reader.gaps) == (3 * BATCH_EVENTS, [])
