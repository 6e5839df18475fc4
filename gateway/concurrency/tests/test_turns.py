import asyncio

from gateway.concurrency.stopping import stop_tasks
from gateway.concurrency.turns import Turns


class Work:
    """Takes turns and holds them until ``is_over``; ``busy`` lists the current holders."""

    def __init__(self, turns):
        self.turns = turns
        self.busy = []
        self.is_over = asyncio.Event()

    async def do(self, name):
        async with self.turns.acquire(name):
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


async def test_a_cancelled_holder_and_a_cancelled_waiter_release_their_turns():
    turns = Turns(each=1, in_all=1)
    work = Work(turns)
    holding, waiting = await started(work, "a", "a")
    await stop_tasks(waiting, holding)
    async with asyncio.timeout(5), turns.acquire("a"):
        assert turns._queues["a"].users == 1
    assert turns._queues == {}
