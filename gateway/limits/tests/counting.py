"""Counters for tests, and the plain token bucket that they must agree with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from gateway.limits.counters import LEFT_SHARE, TAIL_S, Counter, Terms
from gateway.snapshot.picture import Limit, Metric


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket as it stood at one instant: the plain model that the counters must agree with."""

    tokens: float
    at_s: float

    def refilled(self, rate: float, size: float, now_s: float) -> Self:
        return replace(self, tokens=min(size, self.tokens + rate * (now_s - self.at_s)), at_s=now_s)


def lend(bucket: Bucket, rate: float, requested: Terms) -> tuple[Bucket, float]:
    """Do what the store's script does."""
    if requested.want + requested.ahead <= 0 or bucket.tokens < requested.enough - 1e-6:
        return bucket, 0.0
    ahead = min(requested.ahead, max(bucket.tokens * LEFT_SHARE, rate * TAIL_S))
    tokens = max(requested.short, float(min(requested.want + ahead, bucket.tokens) // 1))
    return replace(bucket, tokens=bucket.tokens - tokens), tokens


def alone(amount: float, per: float | str = 1.0, burst: float = 0) -> Counter:
    return Counter(Limit(Metric.MESSAGES_IN, amount, per, burst), "", "acme")


class Asking(Counter):
    """A shared counter that counts how often it asked for more."""

    __slots__ = ("requests",)

    def __init__(self, amount: float, per: float | str = 1.0) -> None:
        super().__init__(Limit(Metric.MESSAGES_IN, amount, per), "key", "acme", is_shared=True)
        self.requests = 0

    def runs_low(self) -> None:
        self.requests += 1
