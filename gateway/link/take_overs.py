"""Requests between processes of the data plane to give up what only one may hold: NATS request and reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from gateway.concurrency.stopping import stop_tasks
from gateway.link.nats import CONTROL_SUBJECT


class TakeOvers:
    """Asks other processes to give up a holder, and answers them once this process has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self, process: str, give_up: Callable[[str], Awaitable[None]]) -> None:
        """Call ``give_up`` for each holder that another process asks this one to give up."""

        async def requested(message: Msg) -> None:
            task = asyncio.create_task(_answer(message, give_up), name="take-over")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        await self._client.subscribe(_subject(process), cb=requested)

    async def request(self, process: str, holder: str, timeout_s: float) -> None:
        """Return once a process has given up a holder, after ``timeout_s``, or at once if the process is gone."""
        with contextlib.suppress(TimeoutError, OSError, NatsError):
            # Nobody subscribes for a process that has ended, so NATS answers immediately.
            await self._client.request(_subject(process), holder.encode(), timeout=timeout_s)

    async def stop(self) -> None:
        """Stop answering."""
        await stop_tasks(*self._answering)


async def _answer(message: Msg, give_up: Callable[[str], Awaitable[None]]) -> None:
    await give_up(message.data.decode("latin-1"))
    with contextlib.suppress(OSError, NatsError):
        await message.respond(b"")


def _subject(process: str) -> str:
    return f"{CONTROL_SUBJECT}.take-over.{process}"
