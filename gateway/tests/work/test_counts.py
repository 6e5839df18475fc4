"""The counter counts what is done in the event loop's thread, and says what grew."""

import asyncio
import gc
import socket

from gateway.tests.work.counts import Counts, count

UNITS = 20


async def nothing():
    pass


async def counted(step):
    async def work():
        for _ in range(UNITS):
            await step()

    return await count(work, UNITS)


async def test_tasks_futures_timers_and_writes_are_counted_by_unit():
    one, other = socket.socketpair()

    async def step():
        await asyncio.create_task(nothing())
        await asyncio.sleep(0.0001)
        one.send(b"a")
        one.send(b"b")

    found = await counted(step)
    one.close()
    other.close()
    assert (found.tasks, found.futures, found.timers, found.writes) == (1, 1, 1, 2)


async def test_memory_that_is_kept_and_collections_are_counted():
    kept = []

    async def step():
        kept.append(bytearray(100))
        gc.collect()

    found = await counted(step)
    assert found.collections == 1
    assert 2 <= found.kept < 3


async def test_what_other_threads_do_is_not_counted():
    loop = asyncio.get_running_loop()

    def elsewhere():
        one, other = socket.socketpair()
        one.send(b"a")
        one.close()
        other.close()

    async def step():
        await loop.run_in_executor(None, elsewhere)

    assert (await counted(step)).writes <= 1  # the one that wakes the loop up


def test_what_grew_is_named_with_both_figures():
    bound = Counts(calls=10, blocks=100, kept=1, writes=2)
    assert bound._replace(calls=10, writes=3).beyond(bound) == ["writes grew from 2 to 3"]
