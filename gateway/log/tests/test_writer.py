"""Events on their way to the log: what they cost, and what becomes of them when NATS is killed."""

import asyncio
from collections import Counter

import pytest

from gateway.log.streams import delete_stream
from gateway.log.writer import Stored, header_block
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import channel, running

HEADERS = header_block([("content-type", "application/json")])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [channel("trades"), channel("news")]) as plane:
        yield plane


class Writes:
    """Writes events and collects their outcomes by number."""

    def __init__(self, plane, address="trades"):
        self._log = plane.log
        self._channel = plane.snapshot.channel(address)[0]
        self._address = address
        self.outcomes = {}
        self.taken = Counter()

    def write(self, *numbers, key=None):
        for number in numbers:
            headers = HEADERS if key is None else header_block([("Nats-Msg-Id", f"{key}-{number}")])

            def done(outcome, number=number):
                self.taken[number] += 1
                self.outcomes[number] = outcome

            self._log.write(self._channel, self._address, b"%d" % number, headers, done, is_repeatable=key is not None)

    async def all(self, count):
        async with asyncio.timeout(20):
            while len(self.outcomes) < count:
                await asyncio.sleep(0.01)
        assert set(self.taken.values()) == {1}, "each outcome is reported once"
        return self.outcomes

    async def kept(self):
        """Return the numbers in the log, in its order, with their ids."""
        events, after = [], 0
        while True:
            batch = await self._log.batch(self._channel, self._channel.subject, after, 1000)
            events += [(int(event.data), event.id) for event in batch.events]
            if not batch.pending:
                return events
            after = batch.events[-1].id


async def test_a_hundred_events_of_a_turn_take_one_write_no_task_and_one_future(plane, monkeypatch):
    writes = Writes(plane)
    writes.write(0)
    await writes.all(1)
    loop = asyncio.get_running_loop()
    counts = Counter()
    transport = plane.nats._transport
    writelines, create_future, create_task = transport.writelines, loop.create_future, loop.create_task
    monkeypatch.setattr(transport, "writelines", lambda lines: counts.update(writes=1) or writelines(lines))
    monkeypatch.setattr(loop, "create_future", lambda: counts.update(futures=1) or create_future())
    monkeypatch.setattr(loop, "create_task", lambda *a, **k: counts.update(tasks=1) or create_task(*a, **k))
    writes.write(*range(1, 101))
    assert counts == {"futures": 1}, "the one that wakes the client's writer"
    await asyncio.sleep(0)
    assert (counts["writes"], counts["tasks"]) == (1, 0)
    monkeypatch.undo()
    outcomes = await writes.all(101)
    assert all(isinstance(outcome, Stored) for outcome in outcomes.values())


@pytest.mark.parametrize("key", [None, "k"])
async def test_when_nats_is_killed_under_load_what_was_acknowledged_is_stored_and_the_rest_is_refused(
    plane, nats_server, key
):
    writes = Writes(plane)
    for number in range(0, 6_000, 50):
        writes.write(*range(number, number + 50), key=key)
        await asyncio.sleep(0)
        if number == 3_000:
            nats_server.kill()
            nats_server.start()
    outcomes = await writes.all(6_000)
    stored = {number: outcome.sequence for number, outcome in outcomes.items() if isinstance(outcome, Stored)}
    refused = [outcome for outcome in outcomes.values() if isinstance(outcome, Refused)]
    assert {one.reason for one in refused} <= {Reason.OVERLOADED}
    assert stored
    assert bool(refused) == (key is None), "what has a message id is sent again"
    kept = await writes.kept()
    assert stored.items() <= dict(kept).items(), "acknowledged and stored, under the id that was reported"
    assert len(dict(kept)) == len(kept), "nothing is stored twice"
    assert [number for number, _ in kept] == sorted(number for number, _ in kept), "in the order of writing"


async def test_events_wait_in_order_for_a_link_that_is_down(plane, nats_server):
    writes = Writes(plane)
    nats_server.kill()
    while plane.nats.is_connected:
        await asyncio.sleep(0.01)
    writes.write(*range(300))
    nats_server.start()
    outcomes = await writes.all(300)
    assert all(isinstance(outcome, Stored) for outcome in outcomes.values())
    assert [number for number, _ in await writes.kept()] == list(range(300))


async def test_events_wait_while_the_link_is_congested_and_are_refused_at_their_deadline(plane, nats_server):
    writes = Writes(plane)
    plane.nats._max_pending_size = -1
    writes.write(1)
    assert not plane.nats._pending
    outcomes = await writes.all(1)
    assert outcomes[1].reason is Reason.OVERLOADED
    plane.nats._max_pending_size = 8 * 1024 * 1024
    async with asyncio.timeout(20):
        while plane.log._silence.silent_s:  # until the probe is answered
            await asyncio.sleep(0.01)
    writes.write(2)
    assert isinstance((await writes.all(2))[2], Stored)


async def test_a_missing_stream_is_created_once_for_all_that_wait_for_it_in_their_order(plane, monkeypatch):
    trades, _ = plane.snapshot.channel("trades")
    await delete_stream(plane.js, trades.stream)
    made, ensure = [], plane.log._writer._ensure
    monkeypatch.setattr(plane.log._writer, "_ensure", lambda one: made.append(one.address) or ensure(one))
    writes, others = Writes(plane), Writes(plane, "news")
    writes.write(*range(200))
    others.write(*range(200))
    await writes.all(200)
    await others.all(200)
    assert made == ["trades"]
    assert [number for number, _ in await writes.kept()] == list(range(200))


async def test_what_is_on_its_way_when_the_process_stops_is_refused(plane, nats_server):
    writes = Writes(plane)
    nats_server.freeze()
    try:
        writes.write(*range(10))
        await plane.log.stop()
    finally:
        nats_server.thaw()
    assert {outcome.reason for outcome in writes.outcomes.values()} == {Reason.OVERLOADED}
    assert len(writes.outcomes) == 10


def test_a_header_that_would_end_its_line_is_not_encoded():
    assert header_block([("a", "1"), ("b", "é")]) == "NATS/1.0\r\na: 1\r\nb: é\r\n\r\n".encode()
    for value in ("x\r\ny: z", "x\n", "\r"):
        with pytest.raises(ValueError, match="line end"):
            header_block([("a", value)])
