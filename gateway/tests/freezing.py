"""Stops a process where it is, so that it hangs as a hung one does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

STOPPED = ("T", "t")
WITHIN_S = 20.0


def freeze(pid: int) -> None:
    """Stop a process, and return only when each of its threads stands: until then it may still answer."""
    os.kill(pid, signal.SIGSTOP)
    ends_at = time.monotonic() + WITHIN_S
    while not all(state in STOPPED for state in _states(pid)):
        assert time.monotonic() < ends_at, f"process {pid} does not stand"
        time.sleep(0.001)


def thaw(pid: int) -> None:
    """Let it go on."""
    os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> list[str]:
    """Return the state of each thread (proc(5), ``/proc/pid/task/tid/stat``); empty if the process is gone."""
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            states.append(task.read_text().rpartition(")")[2].split()[0])
    return states
