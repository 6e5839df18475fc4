"""Ends tasks for sure: one word to stop may be lost on its way."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.2


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they have ended; what they raise is lost.

    Said again until they have: ``asyncio.wait_for``, which the client of NATS waits with, swallows a cancellation that
    comes in the instant of its answer (Python before 3.12), and a loop around it would go on for ever.
    """
    pending = {task for task in tasks if task is not None}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
