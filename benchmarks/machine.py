"""Whether this machine is quiet enough for figures that another run would repeat."""

from __future__ import annotations

import time
from pathlib import Path

BUSY_MAX = 0.05
"""The share of all cores that others may use."""
OBSERVED_S = 2.0


def busy_share(observed_s: float = OBSERVED_S) -> float:
    """Return the share of all cores that was in use over so many seconds, in which this process sleeps."""
    before = _times(Path("/proc/stat").read_text())
    time.sleep(observed_s)
    after = _times(Path("/proc/stat").read_text())
    return share(before, after)


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the share in use between two readings of (idle, total)."""
    total = after[1] - before[1]
    return 1 - (after[0] - before[0]) / total if total else 0.0


def _times(stat: str) -> tuple[int, int]:
    """Return the ticks that all cores were idle or waited for a disk, and all ticks."""
    fields = [int(field) for field in stat.split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
