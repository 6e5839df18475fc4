"""Parts of an HTTP connection as small as an idle one needs: uvicorn makes a queue and an event for each."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's flow control, with something to wait for only while the client does not read."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._writable: asyncio.Future[None] | None = None

    async def drain(self) -> None:
        """Wait until the client reads."""
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Let those who wait write again."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None


class Waiting(list[Any]):
    """The pipelined requests that wait, of which there are few: a list takes a tenth of the memory of a deque."""

    __slots__ = ()

    def appendleft(self, one: Any) -> None:
        """Add one behind all others; ``pop`` returns the first."""
        self.insert(0, one)
