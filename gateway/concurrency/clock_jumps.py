"""Bears that somebody sets the clock: by one that does not feel it, or by giving everybody time anew."""

from __future__ import annotations

import time

JUMP_S = 2.0
"""Less is slewing, or rounding."""


_BEGAN_AT = time.time() - time.monotonic()


def steady_time() -> float:
    """Say the time in Unix seconds by a clock that nobody sets: what is put off by it, in one process, stays so."""
    return _BEGAN_AT + time.monotonic()


class ClockJumps:
    """Compares how far the wall clock went with how far the monotonic one did, which nobody can set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def jumped_s(self) -> float:
        """Say by how much the clock was set since this was last asked, forward or back; 0 where it was not."""
        offset = time.time() - time.monotonic()
        jumped = offset - self._offset
        self._offset = offset
        return jumped if abs(jumped) >= JUMP_S else 0.0
