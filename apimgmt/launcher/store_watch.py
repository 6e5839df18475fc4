"""Starts the embedded NATS anew once there is room again: a stream that met a full disk stores nothing more before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.log.disk import Disk

LOOK_S = 1.0
RESTART_EVERY_S = 30.0
"""No more often: where it meets an end that is not seen here, such as a quota, it would never serve."""
READ_MAX_BYTES = 256 * 1024
SAID = b"no space left on device"


@dataclass(slots=True)
class StoreWatch:
    """What the log of one NATS says of its disk."""

    log: Path
    disk: Disk
    restart: Callable[[], None]
    """Called where it met a full disk, and there is room now."""
    has_met_its_end: bool = False
    _read_to: int = field(default=0)
    _look_at: float = 0.0
    _restart_at: float = 0.0

    def __post_init__(self) -> None:
        """Begin at the end: what earlier runs have met was mended by their end."""
        self._read_to = self._size()

    def look(self) -> None:
        """Look, once in a while. To be called often."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        self.has_met_its_end = self._says_so() or self.has_met_its_end
        if self.has_met_its_end and not self.disk.is_full and time.monotonic() >= self._restart_at:
            self.has_met_its_end = False
            self._restart_at = time.monotonic() + RESTART_EVERY_S
            self.restart()

    def _says_so(self) -> bool:
        size, begin = self._size(), self._read_to
        self._read_to = size
        if size in (begin, 0):
            return False
        begin = max(begin if begin < size else 0, size - READ_MAX_BYTES)
        with self.log.open("rb") as file:
            file.seek(max(begin - len(SAID), 0))
            return SAID in file.read(READ_MAX_BYTES + len(SAID))

    def _size(self) -> int:
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0
