"""Cancels tasks reliably: a single cancellation can be lost on its way."""

from __future__ import annotations

import asyncio
from typing import Any

REPEAT_S = 0.2


async def stop_tasks(*tasks: asyncio.Task[Any] | None, repeat_s: float = REPEAT_S) -> None:
    """Cancel tasks, wait until all of them have ended, and discard what they raise.

    The cancellation is repeated every ``repeat_s``: ``asyncio.wait_for``, which the NATS client uses, swallows one that
    arrives at the same moment as its result (Python before 3.12), and a loop around it would never end. A task that
    awaits while it cleans up needs a ``repeat_s`` longer than that takes.
    """
    pending = {task for task in tasks if task is not None}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=repeat_s)
        for task in done:
            discard(task)


def stop_soon(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task from code that cannot await; otherwise the same as :func:`stop_tasks`."""
    if task is None or task.done():
        return
    task.add_done_callback(discard)
    _cancel_until_done(task)


def _cancel_until_done(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        task.get_loop().call_later(REPEAT_S, _cancel_until_done, task)


def discard(task: asyncio.Task[Any]) -> None:
    """Mark the exception of a task that has ended as retrieved, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
