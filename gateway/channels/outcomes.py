"""What becomes of several events that are being stored at once."""

from __future__ import annotations

import asyncio

from gateway.log.event_log import Stored
from gateway.refusals import Refused


class Outcomes:
    """Collects the outcomes of events by their numbers, without a future for each."""

    def __init__(self, count: int) -> None:
        self._outcomes: list[Stored | Refused | None] = [None] * count
        self._left = count
        self._completed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_failed = False
        """Whether an event was refused: those that are not being stored yet should not be."""
        self.leave_out(0)

    def take(self, number: int, outcome: Stored | Refused) -> None:
        """Take the outcome of one event, as a callback of the log does."""
        self._outcomes[number] = outcome
        self._left -= 1
        self.has_failed |= isinstance(outcome, Refused)
        if not self._left and not self._completed.done():
            self._completed.set_result(None)

    def leave_out(self, count: int) -> None:
        """Expect no outcome of so many events, which are the last."""
        self._left -= count
        if not self._left and not self._completed.done():
            self._completed.set_result(None)

    async def stored(self) -> list[Stored]:
        """Return the places of all events in their order. Raises the first refusal once every outcome is known."""
        await self._completed
        places: list[Stored] = []
        for outcome in self._outcomes:
            if isinstance(outcome, Refused):
                raise outcome
            if outcome is not None:
                places.append(outcome)
        return places
