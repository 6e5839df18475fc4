"""Limits how often the same event is logged, and counts how often it was left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class LogThrottle:
    """Lets an event through once per interval; remembers at most ``keys_max`` different events."""

    def __init__(
        self, interval_s: float = 60.0, keys_max: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = interval_s
        self._keys_max = keys_max
        self._clock = clock
        self._seen: dict[Hashable, tuple[float, int]] = {}
        """When each event was last let through, and how often it occurred since."""

    def suffix(self, key: Hashable) -> str | None:
        """Return None where the event must not be logged now, else text that tells how often it was left out."""
        now = self._clock()
        logged_at, suppressed = self._seen.get(key, (float("-inf"), 0))
        if now - logged_at < self._interval_s:
            self._seen[key] = (logged_at, suppressed + 1)
            return None
        self._seen.pop(key, None)
        while len(self._seen) >= self._keys_max:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now, 0)
        return f" (and {suppressed} more times since this was last logged)" if suppressed else ""
