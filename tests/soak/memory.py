"""Memory of each process over time, from the kernel (proc(5), ``smaps_rollup``)."""

import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple

EVERY_S = 2.0
KIB_A_MIB = 1024


class Sample(NamedTuple):
    at_s: float
    mib: float


class Trend(NamedTuple):
    """The growth of one process, between the first and the last quarter of what was sampled."""

    name: str
    mib: float
    grown_mib: float
    mib_an_hour: float


class Memory(threading.Thread):
    """Samples the private memory of every process; what is shared with the supervisor is not any one's own."""

    def __init__(self, product):
        super().__init__(daemon=True)
        self.product = product
        self.over = threading.Event()
        self._samples = {}

    def run(self):
        while not self.over.wait(EVERY_S):
            for name, pids in self.product.reread()["processes"].items():
                for pid in pids:
                    if mib := private_mib(pid):
                        self._samples.setdefault((name, pid), []).append(Sample(time.monotonic(), mib))

    def restart(self):
        """Forget what was sampled: a new time is measured from here on."""
        self._samples = {}

    def trends(self):
        """Return the growth of each process that was there for most of the time."""
        longest = max((len(samples) for samples in self._samples.values()), default=0)
        found = [
            trend_of(f"{name} {pid}", samples)
            for (name, pid), samples in list(self._samples.items())
            if len(samples) > max(8, 0.8 * longest)
        ]
        return sorted(found)


def trend_of(name, samples):
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    before, after = (statistics.median(sample.mib for sample in part) for part in (first, last))
    hours = (statistics.mean(s.at_s for s in last) - statistics.mean(s.at_s for s in first)) / 3600
    return Trend(name, after, after - before, (after - before) / hours)


def private_mib(pid):
    """Return the private memory of a process in MiB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / KIB_A_MIB
