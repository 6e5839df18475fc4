"""Counts attempts against budgets, in windows of time: in the cache that processes share, and in this process.

While the cache is unavailable, this process alone counts: nobody is locked out for that, and nothing is unlimited.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from django.core.cache import cache
from redis.exceptions import RedisError

from gateway.refusals import Reason, Refused

logger = logging.getLogger(__name__)

COUNTERS_KEPT = 10_000
"""How many counters this process keeps; beyond that, the one that was used least recently is forgotten."""
RETRY_CACHE_S = 5.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How many attempts of one subject are allowed in a window of time, counted from multiples of its length."""

    name: str
    amount: int
    window_s: int

    def counter(self, *subject: str, now_s: float) -> Counter:
        """Return the counter of a subject at an instant."""
        text = "\0".join(subject).encode("utf-8", "surrogatepass")
        window = int(now_s // self.window_s)
        key = f"attempts:{self.name}:{blake2b(text, digest_size=16).hexdigest()}:{window}"
        return Counter(key, self, (window + 1) * self.window_s - now_s)


@dataclass(frozen=True, slots=True)
class Counter:
    """The attempts of one subject in one window."""

    key: str
    budget: Budget
    left_s: float
    """How long its window still lasts."""


class UsedUp(Refused):
    """A budget is used up; ``budget`` is the first of those that are."""

    def __init__(self, counter: Counter) -> None:
        super().__init__(
            Reason.RATE_LIMITED, "Too many attempts. Try again later.", retry_after_s=counter.left_s, cause="attempts"
        )
        self.budget = counter.budget


class Attempts:
    """Counts attempts. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._cache_away_until = float("-inf")

    def charge(self, *counters: Counter) -> None:
        """Count one attempt on each counter, or raise UsedUp and count it on none."""
        with self._lock:
            for counter in counters:
                if self._counts.get(counter.key, 0) >= counter.budget.amount:
                    raise UsedUp(counter)
            for counter in counters:
                self._add(counter, 1)
        full = self._charge_shared(counters)
        if full is not None:
            self.refund(*counters)
            raise UsedUp(full)

    def refund(self, *counters: Counter) -> None:
        """Take back one attempt that was counted on each counter."""
        with self._lock:
            for counter in counters:
                self._add(counter, -1)
        self._in_cache(lambda: [_add_shared(counter, -1) for counter in counters])

    def forget(self) -> None:
        """Forget what this process has counted."""
        with self._lock:
            self._counts.clear()

    def _charge_shared(self, counters: tuple[Counter, ...]) -> Counter | None:
        """Count on each counter of the cache, and return the first that is beyond its budget, or None."""
        counts = self._in_cache(lambda: [_add_shared(counter, 1) for counter in counters])
        pairs = zip(counters, counts, strict=False)
        return next((counter for counter, count in pairs if count > counter.budget.amount), None)

    def _in_cache(self, work: Callable[[], list[int]]) -> list[int]:
        """Return what work returns, or nothing while the cache is unavailable; it is tried again after a while."""
        if self._clock() < self._cache_away_until:
            return []
        try:
            return work()
        except (RedisError, OSError):
            self._cache_away_until = self._clock() + RETRY_CACHE_S
            logger.warning("attempts are counted by this process alone: the shared counters are unavailable")
            return []

    def _add(self, counter: Counter, attempts: int) -> None:
        self._counts[counter.key] = max(0, self._counts.pop(counter.key, 0) + attempts)
        while len(self._counts) > COUNTERS_KEPT:
            self._counts.popitem(last=False)


def _add_shared(counter: Counter, attempts: int) -> int:
    """Add attempts to a counter of the cache, and return their number; 0 if its window has ended meanwhile."""
    cache.add(counter.key, 0, timeout=int(counter.left_s) + 2)
    try:
        return cache.incr(counter.key, attempts)
    except ValueError:
        return 0


attempts = Attempts()
"""The attempts that this process counts."""
