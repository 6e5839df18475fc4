"""Events that expire in the queue of a connection."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from gateway.channels.outbox import Outbox
from gateway.concurrency.ending import Ending
from gateway.refusals import Reason, Refused
from gateway.tests.clock import HOUR_S, Clock

BOUNDS = SimpleNamespace(send_buffer_max_bytes=1000, send_buffer_max_events=100)


class Limiter:
    """Allows all events, or only as many as a test says."""

    def __init__(self):
        self.allowed = 1000

    def charge_now(self, call, *, messages_out, bytes_out):
        if messages_out > self.allowed:
            return False
        self.allowed -= messages_out
        return True

    async def charge(self, call, *, messages_out, bytes_out):
        if not self.charge_now(call, messages_out=messages_out, bytes_out=bytes_out):
            raise Refused(Reason.RATE_LIMITED, retry_after_s=0.001)


@pytest.fixture
def limiter():
    return Limiter()


@pytest.fixture
async def outbox(limiter):
    call = SimpleNamespace(connection=None)
    ending = Ending()
    yield Outbox(limiter, BOUNDS, call, ending=ending, notice=lambda refused: "delayed")
    assert ending.reason is None


async def test_what_expires_in_the_queue_is_not_taken_and_makes_room(outbox, monkeypatch):
    clock = Clock(monkeypatch)
    outbox.put_event("old", 900, time.time() + 1)
    outbox.put("control")
    outbox.put_event("new", 10)
    outbox.put_event("late", 10, time.time() + 2 * HOUR_S)
    assert not outbox.has_room()
    clock.jump(HOUR_S)
    assert await outbox.take() == ["control", "new", "late"]
    waiting = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert (outbox.waiting, outbox.has_room(), waiting.done()) == (0, True, False)
    waiting.cancel()


async def test_an_event_that_a_limit_delays_past_its_expiry_is_not_taken(outbox, limiter, monkeypatch):
    clock = Clock(monkeypatch)
    limiter.allowed = 0
    outbox.put_event("old", 10, time.time() + 1)
    outbox.put_event("new", 10)
    assert await outbox.take() == ["delayed"]
    clock.jump(HOUR_S)
    limiter.allowed = 1
    assert await outbox.take() == ["new"]
    assert outbox.waiting == 1
