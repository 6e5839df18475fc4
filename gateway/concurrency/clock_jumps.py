"""Tolerates adjustments of the wall clock: a clock that ignores them, and a detector of them."""

from __future__ import annotations

import time

JUMP_S = 2.0
"""Smaller differences are slewing or rounding."""


_STARTED_AT = time.time() - time.monotonic()


def steady_time() -> float:
    """Return Unix time by a clock that ignores adjustments after the start of the process.

    Instants of one process compare correctly, but may differ from the wall clock.
    """
    return _STARTED_AT + time.monotonic()


class ClockJumps:
    """Detects adjustments of the wall clock by comparing it with the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def jumped_s(self) -> float:
        """Return by how much the clock was adjusted since the last call, negative if backward; 0 if it was not."""
        offset = time.time() - time.monotonic()
        jumped = offset - self._offset
        self._offset = offset
        return jumped if abs(jumped) >= JUMP_S else 0.0
