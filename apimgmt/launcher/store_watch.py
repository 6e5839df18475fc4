"""Restarts the embedded NATS after its disk was full, once there is space: until then its streams store nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.log.disk import Disk

CHECK_S = 1.0
RESTART_EVERY_S = 30.0
"""Minimum time between restarts: a limit that is not visible here, such as a quota, would cause them in a loop."""
READ_MAX_BYTES = 256 * 1024
DISK_FULL = b"no space left on device"


@dataclass(slots=True)
class StoreWatch:
    """Watches the log of NATS for a full disk."""

    log: Path
    disk: Disk
    restart: Callable[[], None]
    """Called once the disk was full and has space again."""
    was_full: bool = False
    _read_to: int = field(default=0)
    _check_at: float = 0.0
    _restart_at: float = 0.0

    def __post_init__(self) -> None:
        """Start at the end of the file: errors of earlier runs ended with them."""
        self._read_to = self._size()

    def check(self) -> None:
        """Read new lines and restart NATS if needed, at most once per ``CHECK_S``; may be called more often."""
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + CHECK_S
        self.was_full = self._reports_full_disk() or self.was_full
        if self.was_full and not self.disk.is_full and time.monotonic() >= self._restart_at:
            self.was_full = False
            self._restart_at = time.monotonic() + RESTART_EVERY_S
            self.restart()

    def _reports_full_disk(self) -> bool:
        size, begin = self._size(), self._read_to
        self._read_to = size
        if size in (begin, 0):
            return False
        begin = max(begin if begin < size else 0, size - READ_MAX_BYTES)
        with self.log.open("rb") as file:
            file.seek(max(begin - len(DISK_FULL), 0))
            return DISK_FULL in file.read(READ_MAX_BYTES + len(DISK_FULL))

    def _size(self) -> int:
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0
