"""The disk that the event store lies on: publishes are refused before it is full, so that the store itself stays whole.

What JetStream cannot write breaks its stream until it is started anew, and nothing says so to who publishes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.1
"""So often the system is asked while much is free; near the end it is asked each time."""
NEAR = 4
"""So many times what must be free is near the end."""
SHARE = 0.1
"""On small disks so much is kept free, at most."""
NODES_FREE_MIN = 1000
"""So many files may still be made, on disks that count them: the store makes some for each channel and as it grows."""


class Disk:
    """How full it is. Asking is cheap; where the store is on another machine it is never full here."""

    def __init__(self, folder: Path | None, free_min_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._free_min_bytes = free_min_bytes
        self._clock = clock
        self._look_at = float("-inf")

    @property
    def is_full(self) -> bool:
        """Less is free than must be: ``free_min_bytes``, or a tenth of a small disk; or few files may still be made."""
        if self._folder is None:
            return False
        now = self._clock()
        if now < self._look_at:
            return False
        try:
            said = os.statvfs(self._folder)
        except OSError:
            return False  # it is made by the store, which tells itself what is wrong
        free, size = said.f_bavail * said.f_frsize, said.f_blocks * said.f_frsize
        must_be_free = min(self._free_min_bytes, size * SHARE)
        # A disk that makes them as they are needed says 0 of 0.
        nodes, nodes_must_be = said.f_favail, min(NODES_FREE_MIN, said.f_files * SHARE)
        if free > NEAR * must_be_free and nodes >= NEAR * nodes_must_be:
            self._look_at = now + LOOK_S
        return free < must_be_free or nodes < nodes_must_be
