"""The disk of the event log: publishes are refused before it is full.

A failed write breaks a JetStream stream until NATS is restarted, and no error reaches the publisher.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

READ_EVERY_S = 0.1
"""How often the free space is read while there is plenty; near the limit it is read each time."""
NEAR = 4
"""The limit is near below so many times the space to keep free."""
SHARE = 0.1
"""The largest share of a disk that is kept free, for small disks."""
NODES_FREE_MIN = 1000
"""Inodes kept free: the store creates files for each channel, and as it grows."""


class Disk:
    """The free space of the store's folder; a store on another machine has none, and is never full."""

    def __init__(self, folder: Path | None, free_min_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._free_min_bytes = free_min_bytes
        self._clock = clock
        self._read_at = float("-inf")

    @property
    def is_full(self) -> bool:
        """Whether less than ``free_min_bytes`` (or a tenth of a small disk) is free, or few inodes are."""
        if self._folder is None:
            return False
        now = self._clock()
        if now < self._read_at:
            return False
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return False  # the store creates it, and logs why it cannot
        free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        must_be_free = min(self._free_min_bytes, size * SHARE)
        # File systems that create inodes on demand report 0 of 0.
        nodes, nodes_must_be = status.f_favail, min(NODES_FREE_MIN, status.f_files * SHARE)
        if free > NEAR * must_be_free and nodes >= NEAR * nodes_must_be:
            self._read_at = now + READ_EVERY_S
        return free < must_be_free or nodes < nodes_must_be
