"""One `up` a data directory: held by it, by its children and by its engines, so nothing of an earlier run is left."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import TextIO

LEFTOVERS_WITHIN_S = 10.0
"""How long the processes of an `up` that was killed may take to follow it."""


class DataDirTaken(RuntimeError):
    """Another `up` runs with this data directory."""


def take(data_dir: Path) -> TextIO:
    """Take the data directory; waits for what an `up` that is gone has left. Raises DataDirTaken."""
    lock = (data_dir / "up.lock").open("a+")
    ends_at = time.monotonic() + LEFTOVERS_WITHIN_S
    while not _taken(lock):
        lock.seek(0)
        holder = lock.read().strip()
        if time.monotonic() > ends_at or (holder.isdigit() and _lives(int(holder))):
            lock.close()
            raise DataDirTaken(f"Another `up` (process {holder or 'unknown'}) runs with {data_dir}")
        time.sleep(0.05)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lives(pid: int) -> bool:
    """Say whether a process runs; one that has ended and was not yet reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # gone since, or a system that has no /proc
    except PermissionError:
        return True
