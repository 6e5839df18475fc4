"""Reads the CPU time of a server's processes from the start of a load to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.processes import cpu_s
from benchmarks.sampling import WrongAnswer


class Meter:
    """Runs from when it is made."""

    def __init__(self, pids: Sequence[int], stores: Sequence[int] = ()) -> None:
        self._pids, self._stores = pids, stores
        self._before = cpu_s(pids), cpu_s(stores)
        self._began = time.perf_counter()

    def sample(self, units: int) -> dict[str, float]:
        """Return the cost of so many verified units, and their rate. Raises WrongAnswer where there are none."""
        if not units:
            raise WrongAnswer("nothing was done")
        took_s = time.perf_counter() - self._began
        own, stores = cpu_s(self._pids) - self._before[0], cpu_s(self._stores) - self._before[1]
        measured = {"cpu_us": own / units * 1e6, "per_s": units / took_s}
        return measured | ({"all_us": (own + stores) / units * 1e6} if self._stores else {})
