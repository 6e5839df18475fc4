"""The budget of refused calls by IP address: what callers without a principal are charged to."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.identity.client_address import network_of
from gateway.refusals import Reason, Refused

PER_MINUTE = 6_000
BURST_S = 10
"""The burst is what is refilled in this time."""
ADDRESSES_KEPT = 10_000


class RefusedCalls:
    """A token bucket for each IPv4 address and IPv6 /64, local to this process; at most ``ADDRESSES_KEPT`` are kept.

    Calls with a proved credential are never charged to it, so refused calls of others do not affect them.
    """

    def __init__(self, per_minute: int = PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._size = max(1.0, self._per_s * BURST_S)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens, and when they were counted; the address that was charged least recently first."""

    def charge(self, ip: str) -> None:
        """Charge one call. Raises Refused ``rate-limited`` beyond the budget."""
        now, place = self._clock(), network_of(ip)
        tokens, counted_at = self._buckets.pop(place, (self._size, now))
        tokens = min(self._size, tokens + (now - counted_at) * self._per_s)
        while len(self._buckets) >= ADDRESSES_KEPT:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[place] = (tokens - 1 if tokens >= 1 else tokens, now)
        if tokens < 1:
            raise Refused(
                Reason.RATE_LIMITED,
                "Too many refused calls from this address.",
                retry_after_s=(1 - tokens) / self._per_s,
                cause="refused-calls",
            )

    def charged(self, ip: str, refused: Refused) -> Refused:
        """Charge a refused call, and return its refusal, or that by this budget. Faults of the gateway cost nothing."""
        if not 400 <= refused.status < 500 or refused.status == 429:
            return refused
        try:
            self.charge(ip)
        except Refused as beyond:
            return beyond
        return refused
