"""Why something ends: the first reason counts."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Ending(Generic[T]):
    """Called with the reason why a connection is to end; returns at once.

    It refers to nothing of the connection, so that what closes a connection may be kept by its parts: as a cycle they
    would stay until a collection, which stops all traffic.
    """

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def __call__(self, reason: T) -> None:
        """End for this reason, unless there is one already."""
        if not self.future.done():
            self.future.set_result(reason)

    @property
    def reason(self) -> T | None:
        """The reason, None while there is none."""
        return self.future.result() if self.future.done() else None
