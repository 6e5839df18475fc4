"""Where a reader begins, what it has missed for good, and how it meets live events: over a log in memory."""

import asyncio

import pytest

from gateway.log import catch_up
from gateway.log.catch_up import BATCH_EVENTS, BUFFERED_MAX, EARLIEST, CatchUp, Gap, begin
from gateway.log.event import Event
from gateway.log.event_log import Batch, Extent
from gateway.refusals import Reason, Refused

HELD = Extent(first=100, last=200, began_at=50)
WITHIN_S = 5


@pytest.mark.parametrize(
    ("position", "begins_at", "gap"),
    [
        (EARLIEST, 99, None),
        (99, 99, None),
        (150, 150, None),
        (200, 200, None),
        (98, 99, Gap(98, 100, "retention")),
        (49, 99, Gap(49, 100, "retention")),
        (48, 99, Gap(48, 100, "recreated")),
        (201, 200, Gap(201, 201, "recreated")),
        (2**63 - 1, 200, Gap(2**63 - 1, 201, "recreated")),
    ],
)
def test_where_a_reader_begins_and_what_it_missed(position, begins_at, gap):
    assert begin(position, HELD) == (begins_at, gap)


def test_an_empty_log_is_no_gap_to_a_reader_that_has_read_it_all():
    assert begin(200, Extent(first=201, last=200, began_at=50)) == (200, None)
    assert begin(199, Extent(first=201, last=200, began_at=50)) == (200, Gap(199, 201, "retention"))


def event(id_):
    return Event("trades", "trades", id_, "2026-01-01T00:00:00Z", b"1")


class MemoryLog:
    """A log whose events are ids; ``meanwhile`` runs after each batch was read, as retention does beside a reader."""

    def __init__(self, ids, began_at=1):
        self.ids = list(ids)
        self.began_at = began_at
        self.last = self.ids[-1]
        self.failures = 0
        self.read = []
        self.extents = 0
        self.meanwhile = lambda: None

    async def batch(self, channel, subject, after, limit, max_bytes, *, reader):
        self._fail()
        self.read.append((after, limit, max_bytes, reader))
        above = [id_ for id_ in self.ids if id_ > after]
        found = Batch([event(id_) for id_ in above[:limit]], len(above[limit:]))
        self.meanwhile()
        return found

    async def extent(self, channel):
        self._fail()
        self.extents += 1
        first = self.ids[0] if self.ids else self.last + 1
        return Extent(first, self.last, self.began_at)

    def _fail(self):
        if self.failures:
            self.failures -= 1
            raise Refused(Reason.OVERLOADED)


class Reading:
    """One catch-up over such a log, and what it delivered."""

    def __init__(self, log, **more):
        self.ids, self.gaps, self.live_from = [], [], None
        self._is_over = asyncio.Event()
        self.catching_up = CatchUp(
            log,
            None,
            "trades",
            deliver=lambda event: self.ids.append(event.id),
            done=self._done,
            on_gap=self.gaps.append,
            **{"has_room": lambda: True, **more},
        )

    def _done(self, position):
        self.live_from = position
        self._is_over.set()

    async def over(self):
        async with asyncio.timeout(WITHIN_S):
            await self._is_over.wait()
        return self


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(catch_up, "RETRY_S", 0)


async def test_what_is_stored_is_delivered_above_the_position_and_then_it_is_live():
    reading = Reading(log := MemoryLog(range(1, 6)), reader="acme")
    reading.catching_up.start(2)
    await reading.over()
    assert (reading.ids, reading.gaps, reading.live_from) == ([3, 4, 5], [], 5)
    assert log.read == [(2, BATCH_EVENTS, catch_up.BATCH_MAX_BYTES, "acme")]


async def test_an_empty_log_is_read_once():
    log = MemoryLog([1])
    log.ids, log.last = [], 0
    reading = Reading(log)
    reading.catching_up.start(0)
    await reading.over()
    assert (reading.ids, reading.live_from, len(log.read)) == ([], 0, 1)


async def test_events_without_a_hole_need_no_look_at_the_extent():
    reading = Reading(log := MemoryLog(range(1, 6)))
    reading.catching_up.start(2)
    await reading.over()
    assert log.extents == 0


async def test_it_reads_batch_after_batch():
    reading = Reading(log := MemoryLog(range(1, 2 * BATCH_EVENTS + 2)))
    reading.catching_up.start(0)
    await reading.over()
    assert reading.ids == log.ids
    assert [after for after, *_ in log.read] == [0, BATCH_EVENTS, 2 * BATCH_EVENTS]


async def test_live_events_follow_what_was_stored_each_once():
    reading = Reading(MemoryLog(range(1, 6)))
    reading.catching_up.start(0)
    for id_ in (4, 5, 6, 7):
        reading.catching_up.offer(event(id_))
    await reading.over()
    assert (reading.ids, reading.live_from) == ([1, 2, 3, 4, 5, 6, 7], 7)


async def test_live_events_beyond_the_buffer_are_read_from_the_log():
    log = MemoryLog(range(1, 6))
    reading = Reading(log)
    live = range(6, 6 + BUFFERED_MAX + 1)

    def store_live():
        log.meanwhile = lambda: None
        log.ids += live
        for id_ in live:
            reading.catching_up.offer(event(id_))

    log.meanwhile = store_live
    reading.catching_up.start(0)
    await reading.over()
    assert reading.ids == [*range(1, 6), *live]
    assert [after for after, *_ in log.read] == [0, 5, 5 + BATCH_EVENTS], "what the buffer let go is read once more"


async def test_a_live_event_that_was_let_go_after_it_was_stored_needs_no_second_read():
    log = MemoryLog(range(1, 7))
    reading = Reading(log)
    live = range(6, 6 + BUFFERED_MAX + 1)

    def offer_live():
        for id_ in live:
            reading.catching_up.offer(event(id_))

    log.meanwhile = offer_live
    reading.catching_up.start(0)
    await reading.over()
    assert reading.ids == [*range(1, 6), *live]
    assert len(log.read) == 1


async def test_a_full_buffer_alone_needs_no_second_read():
    log = MemoryLog(range(1, 6))
    reading = Reading(log)
    live = range(6, 6 + BUFFERED_MAX)
    reading.catching_up.start(0)
    for id_ in live:
        reading.catching_up.offer(event(id_))
    await reading.over()
    assert reading.ids == [*range(1, 6), *live]
    assert len(log.read) == 1


async def test_what_retention_took_is_a_gap_up_to_the_next_event():
    log = MemoryLog([*range(1, 4), *range(10, 13)])
    del log.ids[:3]
    reading = Reading(log)
    reading.catching_up.start(1)
    await reading.over()
    assert reading.gaps == [Gap(1, 10, "slow-reader")]
    assert (reading.ids, reading.live_from) == ([10, 11, 12], 12)


async def test_a_gap_never_reaches_beyond_the_next_event():
    log = MemoryLog(range(10, 20))

    def retain_the_last_three():
        log.meanwhile = lambda: None
        del log.ids[:7]

    log.meanwhile = retain_the_last_three
    reading = Reading(log)
    reading.catching_up.start(1)
    await reading.over()
    assert reading.gaps == [Gap(1, 10, "slow-reader")]
    assert reading.ids == [*range(10, 20)]


async def test_a_log_that_retention_emptied_is_a_gap_up_to_its_end():
    log = MemoryLog(range(1, 6))
    log.ids.clear()
    reading = Reading(log)
    reading.catching_up.start(2)
    await reading.over()
    assert (reading.gaps, reading.ids, reading.live_from) == ([Gap(2, 6, "slow-reader")], [], 5)


async def test_events_of_other_addresses_between_two_are_no_gap():
    log = MemoryLog([3, 7, 9])
    log.ids, every = [7, 9], [3, 7, 9]
    extent = Extent(every[0], 9, 1)

    async def whole_extent(channel):
        return extent

    log.extent = whole_extent
    reading = Reading(log)
    reading.catching_up.start(3)
    await reading.over()
    assert (reading.gaps, reading.ids) == ([], [7, 9])


async def test_another_stream_of_that_name_is_no_gap_of_a_slow_reader():
    reading = Reading(MemoryLog(range(100, 103), began_at=100))
    reading.catching_up.start(3)
    await reading.over()
    assert (reading.gaps, reading.ids) == ([], [100, 101, 102])


async def test_from_the_oldest_on_only_what_goes_after_the_first_batch_is_a_gap():
    log = MemoryLog(range(10, 10 + BATCH_EVENTS + 5))
    reading = Reading(log)

    def retain_the_last_three():
        log.meanwhile = lambda: None
        del log.ids[:-3]

    log.meanwhile = retain_the_last_three
    reading.catching_up.start(1, is_oldest=True)
    await reading.over()
    last = 10 + BATCH_EVENTS - 1
    assert reading.gaps == [Gap(last, last + 3, "slow-reader")]


async def test_a_resumed_reader_reports_what_it_missed_and_reads_on():
    log = MemoryLog(range(10, 13))
    reading = Reading(log)
    reading.catching_up.resume(3)
    await reading.over()
    assert reading.gaps == [Gap(3, 10, "retention")]
    assert (reading.ids, reading.live_from) == ([10, 11, 12], 12)


async def test_a_resumed_reader_that_missed_nothing_reports_no_gap():
    reading = Reading(MemoryLog(range(1, 6)))
    reading.catching_up.resume(3)
    await reading.over()
    assert (reading.gaps, reading.ids) == ([], [4, 5])


async def test_what_retention_takes_from_a_resumed_reader_before_it_reads_is_a_gap():
    log = MemoryLog(range(1, 6))
    extent = log.extent

    async def extent_before_retention(channel):
        found = await extent(channel)
        log.ids = [5]
        return found

    log.extent = extent_before_retention
    reading = Reading(log)
    reading.catching_up.resume(3)
    await reading.over()
    assert (reading.gaps, reading.ids) == ([Gap(3, 5, "slow-reader")], [5])


@pytest.fixture
def naps(monkeypatch):
    """Collect what is slept for, and sleep for nothing."""
    naps, sleep = [], asyncio.sleep

    async def nap(seconds):
        naps.append(seconds)
        await sleep(0)

    monkeypatch.setattr(catch_up.asyncio, "sleep", nap)
    return naps


@pytest.mark.parametrize("how", ["start", "resume"])
async def test_an_unavailable_log_is_tried_again_after_a_pause(how, naps, monkeypatch):
    monkeypatch.setattr(catch_up, "RETRY_S", 0.75)
    log = MemoryLog(range(1, 6))
    log.failures = 2
    reading = Reading(log)
    getattr(reading.catching_up, how)(3)
    await reading.over()
    assert (reading.gaps, reading.ids) == ([], [4, 5])
    assert naps.count(0.75) == 2


@pytest.mark.parametrize(
    ("patience_s", "expected"),
    [(0.006, [0, 0.002, 0.004]), (0.2, [0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1])],
)
async def test_a_reader_without_room_is_looked_at_ever_less_often_until_patience_ends(patience_s, expected, naps):
    log = MemoryLog(range(1, BATCH_EVENTS + 2))
    reading = Reading(log, has_room=lambda: False, patience_s=patience_s)
    reading.catching_up.start(0)
    await reading.over()
    assert naps == expected
    assert reading.ids == log.ids


async def test_with_nothing_to_read_live_events_above_the_position_are_delivered():
    reading = Reading(log := MemoryLog(range(1, 6)))
    for id_ in (4, 5, 6, 7):
        reading.catching_up.offer(event(id_))
    reading.catching_up.finish(5)
    assert (reading.ids, reading.live_from, log.read) == ([6, 7], 7, [])


async def test_a_reader_without_room_is_waited_for():
    has_room = False
    log = MemoryLog(range(1, BATCH_EVENTS + 2))
    reading = Reading(log, has_room=lambda: has_room)
    reading.catching_up.start(0)
    await asyncio.sleep(0.3)
    assert len(reading.ids) == BATCH_EVENTS
    has_room = True
    await reading.over()
    assert reading.ids == log.ids


async def test_a_cancelled_reader_delivers_nothing_more():
    reading = Reading(MemoryLog(range(1, 6)))
    reading.catching_up.cancel()
    reading.catching_up.start(0)
    reading.catching_up.cancel()
    await asyncio.sleep(0.01)
    assert (reading.ids, reading.live_from) == ([], None)
