"""Deadlines of what is in flight to upstreams, enforced by one timer for all of them, without one for each request.

A deadline is set at any time by assigning it. The timer runs no later than the nearest deadline that it saw, and no
later than the shortest timeout after it last ran, so it sees every other one before that passes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol as Interface

SWEEP_MAX_S = 0.5
SWEEP_MIN_S = 0.04
"""Bounds of the time between two sweeps. The lower one is how late a deadline may be enforced."""


class Timed(Interface):
    """Something with a deadline."""

    deadline: float | None

    def expire(self) -> None:
        """End it: the deadline has passed."""


class Deadlines:
    """What may have a deadline, and the timer that enforces those of all."""

    __slots__ = ("_on_sweep", "_timer", "runs_at", "shortest_s", "timed")

    def __init__(self, on_sweep: Callable[[float], None]) -> None:
        self.timed: set[Timed] = set()
        self.shortest_s = SWEEP_MAX_S
        """No deadline is set for less than that ahead."""
        self._on_sweep = on_sweep
        self._timer: asyncio.TimerHandle | None = None
        self.runs_at = 0.0
        """When the timer runs."""

    def begin(self) -> None:
        """Start the timer, unless it runs."""
        if self._timer is None:
            self._schedule(self.shortest_s)

    def shorten(self, timeout_s: float) -> None:
        """Let deadlines be set for so little ahead from now on."""
        self.shortest_s = max(timeout_s, SWEEP_MIN_S)
        if self._timer is not None and self.runs_at > time.monotonic() + self.shortest_s:
            self._timer.cancel()
            self._schedule(self.shortest_s)

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self, now: float) -> float:
        """Expire what is past its deadline, and return in how many seconds to sweep again."""
        nearest = now + self.shortest_s
        for timed in list(self.timed):
            if timed.deadline is None:
                continue
            if timed.deadline <= now:
                timed.expire()
            elif timed.deadline < nearest:
                nearest = timed.deadline
        self._on_sweep(now)
        return max(nearest - now, SWEEP_MIN_S)

    def _run(self) -> None:
        within_s = SWEEP_MIN_S
        try:
            within_s = self.sweep(time.monotonic())
        finally:
            self._schedule(within_s)

    def _schedule(self, within_s: float) -> None:
        self.runs_at = time.monotonic() + within_s
        self._timer = asyncio.get_running_loop().call_later(within_s, self._run)
