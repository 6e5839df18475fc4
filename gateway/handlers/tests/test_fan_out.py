"""Live events to many subscribers of each protocol: what a delivery costs, counted; and that none is lost or mixed up.

The counts are bounds that were recorded. A change that needs more writes, tasks or futures a delivery fails here.
"""

import asyncio
from asyncio.selector_events import _SelectorSocketTransport as Transport

import pytest

from gateway.channels.outbox import Outbox
from gateway.log.lot import LOT_MAX_EVENTS, Lot
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import QUIET_S
from gateway.tests.fan_out import MARK, PROTOCOLS, Subscriber, all_protocols, arrive

BURST = 50


@pytest.fixture
def waiting(monkeypatch):
    """Return a function that returns how many events wait in the outbox of a subscriber."""
    outboxes, made = [], Outbox.__init__

    def recorded(outbox, *arguments, **more):
        made(outbox, *arguments, **more)
        outboxes.append(outbox)

    monkeypatch.setattr(Outbox, "__init__", recorded)
    return lambda reader: sum(each.waiting for each in outboxes if each._call.connection is reader.connection)


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with all_protocols(nats_server.url, tmp_path) as plane:
        yield plane


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def writes(monkeypatch):
    """The bytes of each write that holds events."""
    written, write = [], Transport.write

    def counted(transport, data):
        if MARK.search(data):
            written.append(data)
        write(transport, data)

    monkeypatch.setattr(Transport, "write", counted)
    return written


async def subscribers(plane, protocol, count):
    return [await Subscriber(plane, protocol).open() for _ in range(count)]


async def turn():
    await asyncio.sleep(0)


async def test_a_burst_is_one_write_a_subscriber_of_the_same_bytes(plane, protocol, writes):
    readers = await subscribers(plane, protocol, 10)
    size = arrive(plane, range(BURST))
    await turn()
    assert len(writes) == len(readers)
    assert len({id(data) for data in writes}) == 1
    for reader in readers:
        assert await reader.has(BURST) == [*range(BURST)]
        assert reader.account == (BURST, size)


async def test_a_delivery_makes_no_task_and_no_future(plane, protocol, monkeypatch):
    readers = await subscribers(plane, protocol, 10)
    loop, made = asyncio.get_running_loop(), []
    create_task, create_future, call_soon = loop.create_task, loop.create_future, loop.call_soon
    monkeypatch.setattr(loop, "create_task", lambda *a, **more: made.append("task") or create_task(*a, **more))
    monkeypatch.setattr(loop, "create_future", lambda: made.append("future") or create_future())
    monkeypatch.setattr(loop, "call_soon", lambda *a, **more: made.append("call") or call_soon(*a, **more))
    arrive(plane, range(BURST))
    await turn()
    monkeypatch.undo()
    assert made == ["call"] * 2, "one to hand the events out, and one of the test itself"
    for reader in readers:
        await reader.has(BURST)


async def test_events_of_one_address_are_rendered_once_for_all_subscribers(plane, protocol, monkeypatch):
    readers = await subscribers(plane, protocol, 10)
    forms = []
    joined = Lot.joined

    def counted(lot, form):
        forms.append(joined(lot, form))
        return forms[-1]

    monkeypatch.setattr(Lot, "joined", counted)
    arrive(plane, range(3))
    await turn()
    assert len({id(each) for each in forms}) == 1
    for reader in readers:
        assert await reader.has(3) == [0, 1, 2]


async def test_a_slow_reader_gets_everything_in_order_and_the_others_do_not_wait(plane, protocol, writes, waiting):
    slow, *fast = await subscribers(plane, protocol, 4)
    total, size = 0, 0
    while waiting(slow) < 20:
        size += arrive(plane, range(total, total + 20), padding="x" * 500)
        total += 20
        writes.clear()
        await turn()
        assert len(writes) >= len(fast)
        for reader in fast:
            await reader.has(total)
    size += arrive(plane, range(total, total + 1))
    total += 1
    for reader in (*fast, slow):
        assert await reader.has(total) == [*range(total)]
        assert reader.account == (total, size)


async def test_after_it_has_caught_up_a_slow_reader_is_written_to_directly_again(plane, protocol, writes, waiting):
    (reader,) = await subscribers(plane, protocol, 1)
    total = 0
    while not waiting(reader):
        arrive(plane, range(total, total + 20), padding="x" * 500)
        total += 20
        await turn()
    await reader.has(total)
    async with asyncio.timeout(20):
        while waiting(reader):
            await asyncio.sleep(0.01)
    writes.clear()
    arrive(plane, range(total, total + BURST))
    await turn()
    assert len(writes) == 1
    assert await reader.has(total + BURST) == [*range(total + BURST)]


async def test_nothing_is_written_after_a_revocation(plane, protocol, writes):
    revoked, other = await subscribers(plane, protocol, 2)
    size = arrive(plane, range(10))
    await turn()
    arrive(plane, range(10, 20))
    revoked.connection.close(Refused(Reason.KEY_REVOKED))
    await turn()
    arrive(plane, range(20, 30))
    assert await other.has(30) == [*range(30)]
    await revoked.rest()
    assert revoked.numbers == [*range(10)]
    assert revoked.account == (10, size)


async def test_a_limit_that_is_reached_within_a_burst_lets_exactly_its_amount_through(plane, protocol, writes):
    plane.change_tier([{"metric": "messages_out", "amount": 30, "per": 3600, "scope": "connection"}])
    readers = await subscribers(plane, protocol, 3)
    arrive(plane, range(20))
    await turn()
    assert len(writes) == len(readers)
    arrive(plane, range(20, 40))
    for reader in readers:
        assert await reader.has(30) == [*range(30)]
    await asyncio.sleep(QUIET_S)
    assert [reader.connection.messages_out for reader in readers] == [30] * 3
    assert [reader.connection.throttled for reader in readers] == [1] * 3


async def test_a_bytes_limit_lets_a_burst_through_up_to_the_event_that_exceeds_it(plane, protocol):
    plane.change_tier([{"metric": "bytes_out", "amount": 200, "per": 3600, "scope": "connection"}])
    (reader,) = await subscribers(plane, protocol, 1)
    size = arrive(plane, range(10), padding="x" * 10)
    arrive(plane, range(10, 20), padding="x" * 10)
    assert size == 240
    assert await reader.has(8) == [*range(8)]
    await asyncio.sleep(QUIET_S)
    assert reader.account == (8, 8 * 24)


async def test_a_flood_is_delivered_whole_and_in_order(plane, protocol, writes):
    readers = await subscribers(plane, protocol, 3)
    count = 3 * LOT_MAX_EVENTS
    size = arrive(plane, range(count))
    for reader in readers:
        assert await reader.has(count) == [*range(count)]
        assert reader.account == (count, size)
    assert len(writes) <= 3 * len(readers)
