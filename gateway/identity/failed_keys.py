"""Counts wrong keys by IP address. Only wrong keys are answered with 429: a valid credential is never refused here."""

from __future__ import annotations

import time

from gateway.identity.client_address import network_of
from gateway.refusals import Reason, Refused

ADDRESSES_KEPT = 10_000
WINDOW_S = 60.0


class FailedKeys:
    """The wrong keys of each IPv4 address and IPv6 /64 within its current minute, local to this process.

    At most ``ADDRESSES_KEPT`` are kept; beyond that, the one whose last wrong key is oldest is forgotten.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._failures: dict[str, tuple[float, int]] = {}
        """When the minute of each address began, and its wrong keys since."""

    def charged(self, ip: str, refused: Refused) -> Refused:
        """Count a wrong key, and return its refusal, or that by this budget."""
        now, place = time.monotonic(), network_of(ip)
        began_at, count = self._failures.pop(place, (now, 0))
        if now - began_at >= WINDOW_S:
            began_at, count = now, 0
        while len(self._failures) >= ADDRESSES_KEPT:
            del self._failures[next(iter(self._failures))]
        self._failures[place] = (began_at, count + 1)
        if count < self._per_minute:
            return refused
        return Refused(
            Reason.RATE_LIMITED,
            "Too many wrong keys from this address.",
            retry_after_s=began_at + WINDOW_S - now,
            cause="failed-keys",
        )
