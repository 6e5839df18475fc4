"""Holds of resumable tickets that several processes share."""

import asyncio

import pytest

from gateway.identity import ticket_holds
from gateway.identity.ticket_holds import TicketHolds
from gateway.link.nats import connect
from gateway.link.take_overs import TakeOvers
from gateway.refusals import Reason, Refused

NAME, SUBJECT, STREAM = "ticket:test", b"key", "stream"
WAIT_S = 10


class Connection:
    """A connection that holds a ticket, and ends it once it is closed."""

    def __init__(self, hold):
        self.hold, self.reasons = hold, []
        hold.bind(self.close)

    def close(self, refused):
        self.reasons.append(refused.reason)
        self.hold.end()

    async def is_closed(self):
        async with asyncio.timeout(WAIT_S):
            await self.hold.has_ended.wait()
        return self.reasons == [Reason.TAKEN_OVER]


@pytest.fixture
async def ticket(redis):
    await redis.hset(NAME, mapping={"subject": SUBJECT, "at": 0})


@pytest.fixture
async def processes(redis, nats_server, monkeypatch):
    """Return the holds of two processes on one store, which renew often."""
    monkeypatch.setattr(ticket_holds, "RENEW_S", 0.05)
    both = [TicketHolds(redis, 1, idle_s=60) for _ in range(2)]
    clients = [(await connect(nats_server.url, "test"))[0] for _ in both]
    for holds, client in zip(both, clients, strict=True):
        await holds.start(TakeOvers(client))
    yield both
    for holds, client in zip(both, clients, strict=True):
        await holds.stop()
        await client.close()


async def taken(holds, stream=STREAM):
    return Connection(await holds.take(NAME, SUBJECT, stream))


async def test_a_ticket_is_taken_over_from_another_process(processes, ticket):
    here, there = processes
    for older, newer in ((here, there), (there, here), (here, here)):
        first = await taken(older)
        second = await taken(newer)
        assert first.hold.has_ended.is_set(), "before the newer connection begins"
        assert await first.is_closed()
        assert second.reasons == []
        second.hold.end()


async def test_a_connection_that_is_not_open_yet_is_closed_when_it_is(processes, ticket):
    here, there = processes
    early = await here.take(NAME, SUBJECT, STREAM)
    taking = asyncio.create_task(taken(there))
    first = None
    async with asyncio.timeout(WAIT_S):
        while not early._is_lost:
            await asyncio.sleep(0.01)
    first = Connection(early)
    assert first.reasons == [Reason.TAKEN_OVER]
    assert (await taking).reasons == []


async def test_a_ticket_is_taken_over_from_a_connection_to_which_the_store_still_replies(
    processes, ticket, monkeypatch
):
    here, there = processes
    take, is_taken, goes_on = there._take, asyncio.Event(), asyncio.Event()

    async def slow_reply(**arguments):
        reply = await take(**arguments)
        is_taken.set()
        await goes_on.wait()
        return reply

    monkeypatch.setattr(there, "_take", slow_reply)
    first = asyncio.create_task(taken(there))
    await is_taken.wait()
    second = asyncio.create_task(taken(here))
    assert not (await asyncio.wait([second], timeout=0.3))[0], "the first connection has not ended"
    goes_on.set()
    assert (await first).reasons == [Reason.TAKEN_OVER]
    assert (await second).reasons == []


async def test_a_connection_has_ended_once_its_places_are_free(processes, ticket):
    here, there = processes
    is_free = asyncio.get_running_loop().create_future()
    early = await there.take(NAME, SUBJECT, STREAM)
    early.bind(lambda refused: early.end([is_free]))
    newer = asyncio.create_task(taken(here))
    async with asyncio.timeout(WAIT_S):
        await early.has_ended.wait()
    assert not (await asyncio.wait([newer], timeout=0.3))[0]
    is_free.set_result(None)
    assert (await newer).reasons == []


async def test_a_process_that_could_not_be_notified_notices_by_itself(processes, ticket, monkeypatch):
    here, there = processes
    first = await taken(here)
    monkeypatch.setattr(there, "_others", None)
    second = await taken(there)
    assert await first.is_closed()
    assert second.reasons == []


async def test_a_process_that_is_gone_holds_up_nobody(processes, redis, ticket):
    here, _ = processes
    await redis.hset(NAME, "holder", "0123456789abcdef.0123456789abcdef")
    async with asyncio.timeout(ticket_holds.TAKE_OVER_S / 2):
        assert (await taken(here)).reasons == []


async def test_a_store_that_was_emptied_gets_the_tickets_of_open_connections_back(processes, redis, ticket):
    here, there = processes
    first = await taken(here)
    await redis.flushall()
    async with asyncio.timeout(WAIT_S):
        while not await redis.exists(NAME):
            await asyncio.sleep(0.01)
    second = await taken(there)
    assert await first.is_closed()
    with pytest.raises(Refused) as refused:
        await taken(there, "another stream")
    assert (refused.value.reason, refused.value.cause) == (Reason.FORBIDDEN, "ticket-other-stream")
    assert second.reasons == []


async def test_an_ended_hold_is_released_and_its_ticket_kept_for_the_idle_time(processes, redis, ticket):
    here, _ = processes
    (await taken(here)).hold.end()
    async with asyncio.timeout(WAIT_S):
        while await redis.hexists(NAME, "holder"):
            await asyncio.sleep(0.01)
    assert 50 < await redis.ttl(NAME) <= 60
    assert here.known(NAME) is not None


async def test_what_is_known_of_a_ticket_is_forgotten_after_the_idle_time(redis, ticket, monkeypatch):
    holds = TicketHolds(redis, 1, idle_s=0.01)
    hold = await holds.take(NAME, SUBJECT, STREAM)
    await asyncio.sleep(0.02)
    assert holds.known(NAME) is hold, "it is open"
    hold.end()
    async with asyncio.timeout(WAIT_S):
        while holds.known(NAME):
            await asyncio.sleep(0.01)
    await holds.stop()


async def test_an_unknown_ticket_is_not_taken(redis):
    assert await TicketHolds(redis, 1, idle_s=60).take("ticket:unknown", SUBJECT, STREAM) is None
