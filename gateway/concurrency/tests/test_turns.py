import asyncio

from gateway.concurrency.stopping import stop_tasks
from gateway.concurrency.turns import Turns


class Work:
    """Takes turns and holds them until it is let go; says who is at it."""

    def __init__(self, turns):
        self.turns = turns
        self.busy = []
        self.is_over = asyncio.Event()

    async def do(self, name):
        async with self.turns.of(name):
            self.busy.append(name)
            await self.is_over.wait()
            self.busy.remove(name)


async def started(work, *names):
    tasks = [asyncio.create_task(work.do(name)) for name in names]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_one_name_cannot_take_every_turn():
    work = Work(Turns(each=2, in_all=3))
    tasks = await started(work, "a", "a", "a", "b", "c")
    assert work.busy == ["a", "a", "b"]
    work.is_over.set()
    await asyncio.gather(*tasks)
    assert work.busy == []


async def test_a_turn_is_given_back_by_who_fails_and_by_who_no_longer_waits():
    turns = Turns(each=1, in_all=1)
    work = Work(turns)
    holding, waiting = await started(work, "a", "a")
    await stop_tasks(waiting, holding)
    async with asyncio.timeout(5), turns.of("a"):
        assert turns._queues["a"].users == 1
    assert turns._queues == {}
