"""Counts the tasks that an event loop creates."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def counted_tasks() -> Iterator[list[str]]:
    """Yield the names of the coroutines of all tasks that are created meanwhile."""
    loop = asyncio.get_running_loop()
    names: list[str] = []
    before = loop.get_task_factory()

    def factory(loop, coroutine, **more):
        names.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield names
    finally:
        loop.set_task_factory(before)
