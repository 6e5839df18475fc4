"""The memory budget of one process: how near it is, by the resident size that the kernel reports."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

logger = logging.getLogger(__name__)

ROOM_MIN_BYTES = 64 * 1024 * 1024
"""What a budget leaves at least beyond the size at the start: a process without room could serve nothing."""
ENTERED_AT = (0.0, 0.75, 0.90)
LEFT_AT = (0.0, 0.55, 0.75)
"""The used share of the room at which each level is entered, and below which it is left."""
STAYS_TIGHT_SAMPLES = 5
"""How long memory must have been enough before the level says so: what was shed comes back at once otherwise."""
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Level(IntEnum):
    """How scarce memory is."""

    ENOUGH = 0
    TIGHT = 1
    """Anonymous work is shed, the youngest first."""
    FULL = 2
    """New work is refused too. What runs for a proved caller goes on."""


class MemoryBudget:
    """Compares the size of this process with its budget; a level is left well below where it was entered."""

    def __init__(self, max_bytes: int, read: Callable[[], int] | None = None) -> None:
        self._read = read or resident_bytes
        self._base_bytes = self._read()
        self.max_bytes = max(max_bytes, self._base_bytes + ROOM_MIN_BYTES)
        """The budget. A smaller one than the process needs at its start is raised."""
        self.level = Level.ENOUGH
        self._enough_samples = 0

    @property
    def room_bytes(self) -> int:
        """How much more than at its start the process may use."""
        return self.max_bytes - self._base_bytes

    def sample(self) -> Level:
        """Measure, and return the level."""
        if self.level is not Level.ENOUGH:
            release_free_memory()
        resident = self._read()
        level = self._level_of((resident - self._base_bytes) / self.room_bytes)
        if level is not self.level:
            log = logger.warning if level > self.level else logger.info
            log("memory: %s: %d of %d MiB", level.name.lower(), resident // 2**20, self.max_bytes // 2**20)
            self.level = level
        return level

    def _level_of(self, used: float) -> Level:
        level = self.level
        while level < Level.FULL and used >= ENTERED_AT[level + 1]:
            level = Level(level + 1)
        if level is Level.FULL and used < LEFT_AT[level]:
            level = Level.TIGHT
        self._enough_samples = self._enough_samples + 1 if used < LEFT_AT[Level.TIGHT] else 0
        if level is Level.TIGHT and self._enough_samples > STAYS_TIGHT_SAMPLES:
            level = Level.ENOUGH
        return level


def resident_bytes() -> int:
    """Return the resident size of this process; 0 where the kernel does not report it so."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except FileNotFoundError:
        return 0


def release_free_memory() -> None:
    """Return freed memory to the kernel, which the C library keeps otherwise (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
