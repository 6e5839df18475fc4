import asyncio
import gc

from gateway.concurrency.stopping import stop_soon, stop_tasks


def task_that_swallows(cancellations):
    """Return a task that ends with the cancellation after so many."""

    async def loop():
        swallowed = 0
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed == cancellations:
                    raise
                swallowed += 1

    return asyncio.create_task(loop())


async def test_a_task_that_swallows_cancellations_is_stopped():
    task = task_that_swallows(2)
    await asyncio.sleep(0)
    await asyncio.wait_for(stop_tasks(task), 20)
    assert task.cancelled()


async def test_a_failed_task_and_no_task_at_all_can_be_stopped():
    async def fail():
        raise ValueError

    failed = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await stop_tasks(failed, None)
    await stop_tasks()
    stop_soon(failed)
    stop_soon(None)


async def test_code_that_cannot_await_stops_a_task_that_swallows_cancellations():
    task = task_that_swallows(1)
    await asyncio.sleep(0)
    stop_soon(task)
    await asyncio.wait([task], timeout=20)
    assert task.cancelled()


async def test_the_exception_of_a_task_stopped_soon_is_not_logged():
    async def fail():
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    stop_soon(task)
    await asyncio.wait([task], timeout=20)
    del task
    gc.collect()
    assert logged == []
