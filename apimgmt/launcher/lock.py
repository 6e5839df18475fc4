"""The lock of a data directory: one `up` at a time. Children and engines inherit it, so it is free once all ended."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import TextIO

LEFTOVERS_WITHIN_S = 10.0
"""How long the processes of a killed `up` may take to end."""


class DataDirTaken(RuntimeError):
    """Another `up` is running with this data directory."""


def take(data_dir: Path) -> TextIO:
    """Lock the data directory, after waiting for the processes of an `up` that has ended. Raises DataDirTaken."""
    lock = (data_dir / "up.lock").open("a+")
    ends_at = time.monotonic() + LEFTOVERS_WITHIN_S
    while not _try_lock(lock):
        lock.seek(0)
        holder = lock.read().strip()
        if time.monotonic() > ends_at or (holder.isdigit() and _is_alive(int(holder))):
            lock.close()
            raise DataDirTaken(f"Another `up` (process {holder or 'unknown'}) is running with {data_dir}")
        time.sleep(0.05)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _try_lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # ended meanwhile, or a system without /proc
    except PermissionError:
        return True
