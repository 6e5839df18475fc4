"""Counts failed credentials by IP address, so that guessing is refused before any look-up."""

from __future__ import annotations

import time

from gateway.refusals import Reason, Refused

IPS_REMEMBERED = 10_000
WINDOW_S = 60.0


class FailedKeys:
    """The failures of each IP address within its current minute; at most ``IPS_REMEMBERED`` addresses are kept."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._failures: dict[str, tuple[float, int]] = {}

    def check(self, ip: str) -> None:
        """Raise Refused ``rate-limited`` if the address has failed too often within its current minute."""
        began_at, count = self._failures.get(ip, (0.0, 0))
        left_s = began_at + WINDOW_S - time.monotonic()
        if count >= self._per_minute and left_s > 0:
            raise Refused(
                Reason.RATE_LIMITED,
                "Too many failed keys from this address.",
                retry_after_s=left_s,
                cause="failed-keys",
            )

    def add(self, ip: str) -> None:
        """Count one failure."""
        now = time.monotonic()
        began_at, count = self._failures.get(ip, (now, 0))
        if now - began_at >= WINDOW_S:
            began_at, count = now, 0
        if len(self._failures) >= IPS_REMEMBERED and ip not in self._failures:
            self._failures.pop(next(iter(self._failures)))
        self._failures[ip] = (began_at, count + 1)
