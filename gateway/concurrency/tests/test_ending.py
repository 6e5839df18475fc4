import asyncio

from gateway.concurrency.stopping import ended


async def test_a_task_ends_that_has_not_heard_the_first_word():
    heard = 0

    async def loop():
        nonlocal heard
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard += 1
                if heard == 3:
                    raise

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended(task), 20)
    assert task.cancelled()
    assert heard == 3


async def test_what_has_ended_or_never_was_is_no_fault():
    async def fail():
        raise ValueError

    failed = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await ended(failed, None)
    await ended()
