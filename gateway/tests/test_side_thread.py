import asyncio
import threading

import pytest

from gateway.refusals import Reason, Refused
from gateway.side_thread import INLINE_MAX_BYTES, WAITING_EACH_MAX, SideThreads, weight_of

LARGE = INLINE_MAX_BYTES + 1


@pytest.fixture
def threads():
    threads = SideThreads()
    yield threads
    threads.stop()


async def test_light_work_is_done_at_once_and_heavy_work_beside_the_loop(threads):
    assert await threads.run("acme", INLINE_MAX_BYTES, threading.get_ident) == threading.get_ident()
    assert await threads.run("acme", LARGE, threading.get_ident) != threading.get_ident()


async def test_one_consumer_does_not_keep_others_waiting(threads):
    release = threading.Event()
    held = [asyncio.create_task(threads.run("acme", LARGE, release.wait)) for _ in range(5)]
    assert await threads.run("bolt", LARGE, int, "7") == 7
    release.set()
    assert await asyncio.gather(*held) == [True] * 5


async def test_work_beyond_the_queue_is_refused(threads):
    release = threading.Event()
    held = [asyncio.create_task(threads.run("acme", LARGE, release.wait)) for _ in range(WAITING_EACH_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await threads.run("acme", LARGE, int)
    assert (refused.value.reason, refused.value.cause) == (Reason.OVERLOADED, "parsing-queue")
    release.set()
    await asyncio.gather(*held)
    assert await threads.run("acme", LARGE, int) == 0


def test_checks_by_a_schema_weigh_more_than_parsing():
    assert weight_of(100, 1) == 100
    assert weight_of(100, 1000) > 5000
