"""How limits are told: the IETF ``RateLimit-Policy`` and ``RateLimit`` fields, and as JSON.

Structured fields (RFC 9651) of draft-ietf-httpapi-ratelimit-headers: a list of strings with parameters ``q`` (quota),
``w`` (window, whole seconds), ``qu`` (unit where it is not requests), ``r`` (remaining), ``t`` (seconds to all of it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import ceil, floor
from typing import Any

from gateway.limits.budget import Plan
from gateway.limits.counters import Counter, month_ends_at
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit, Metric
from gateway.wire.header_fields import Headers

HTTP_METRICS = (
    Metric.REQUESTS, Metric.MESSAGES_IN, Metric.BYTES_IN, Metric.BYTES_OUT, Metric.TOKENS_IN, Metric.TOKENS_OUT,
)  # fmt: skip
SOCKET_METRICS = (
    Metric.CONNECTIONS, Metric.MESSAGES_IN, Metric.MESSAGES_OUT, Metric.BYTES_IN, Metric.BYTES_OUT,
)  # fmt: skip
UNITS = {
    Metric.BYTES_IN: "content-bytes",
    Metric.BYTES_OUT: "content-bytes",
    Metric.OPEN_CONNECTIONS: "concurrent-requests",
    Metric.OPEN_JOBS: "concurrent-requests",
    Metric.TOKENS_IN: "tokens",
    Metric.TOKENS_OUT: "tokens",
}
MONTH_S = 31 * 86_400
"""The longest month stands for a month where a window must be a number of seconds."""
INTEGER_MAX = 999_999_999_999_999
"""The largest integer that a structured field can carry."""

LEGACY = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")

SAID_FOR_S = 0.002
"""Calls that come closer upon another are told the same: what is left cannot be put to use any finer."""
NEARLY = 1e-6
"""Rounding of instants must not hide a token."""

Count = Callable[[str], int]


class Told:
    """The limits of one plan that one kind of call is told of: what never changes, and where to look up what does."""

    __slots__ = ("_said", "_said_at", "counters", "open", "policy")

    def __init__(self, plan: Plan, is_http: bool) -> None:
        counters = [*_counters(plan, is_http)]
        opened = [] if is_http else [(limit, key) for limit, key in plan.open if limit.mode != "shadow"]
        limits = [*(counter.limit for counter in counters), *(limit for limit, _ in opened)]
        self.policy = ", ".join(map(_policy, limits)).encode()
        self.counters = [(f'"{counter.limit.name}";r=', counter) for counter in counters]
        self.open = [(f'"{limit.name}";r=', _integer(limit.amount), key) for limit, key in opened]
        self._said = b""
        self._said_at = float("-inf")

    def state(self, open_now: Count, now: float) -> bytes:
        """Give the value of ``RateLimit``, as it was at most ``SAID_FOR_S`` ago."""
        if now - self._said_at > SAID_FOR_S:
            self._said, self._said_at = self._state(open_now, now), now
        return self._said

    def _state(self, open_now: Count, now: float) -> bytes:
        state = [_left(head, counter, now) for head, counter in self.counters]
        state += [f"{head}{max(0, amount - open_now(key))}" for head, amount, key in self.open]
        return ", ".join(state).encode()


def fields(plan: Plan, protocol: Protocol, open_now: Count, now: float) -> Headers:
    """Give both fields for a call of this protocol; none where no limit applies. Shadow limits are not told."""
    told = _told(plan, protocol)
    if not told.policy:
        return []
    return [(b"ratelimit-policy", told.policy), (b"ratelimit", told.state(open_now, now))]


def _told(plan: Plan, protocol: Protocol) -> Told:
    is_http = protocol is Protocol.HTTP
    told = plan.told.get(is_http)
    if told is None:
        told = plan.told[is_http] = Told(plan, is_http)
    return told


def with_own(told: Headers, counters: Iterable[Counter], places: Mapping[Limit, int], now: float) -> Headers:
    """Add to the fields what this call alone has: limits of its route, and what is left of open jobs."""
    values = dict(told)
    states = {counter.limit: _left(f'"{counter.limit.name}";r=', counter, now) for counter in counters}
    states |= {limit: f'"{limit.name}";r={left}' for limit, left in places.items()}
    own = {b"ratelimit-policy": map(_policy, states), b"ratelimit": states.values()}
    for name, texts in own.items():
        known = [values[name]] if name in values else []
        values[name] = b", ".join([*known, *(text.encode() for text in texts)])
    return list(values.items())


def legacy_fields(plan: Plan | None, protocol: Protocol, own: Iterable[Counter], now: float) -> Headers:
    """Give ``X-RateLimit-*``, for clients that know no other, of the limit of which the smallest part is left.

    It may be one of the call's ``own``, those of its route.
    """
    counters = [*own]
    if plan is not None:
        counters += [counter for _, counter in _told(plan, protocol).counters]
    if not counters:
        return []
    nearest = min(counters, key=lambda each: each.state(now)[0] / each.size)
    remaining, reset_s = _standing(nearest, now)
    values = _integer(nearest.limit.amount), _integer(remaining + NEARLY), ceil(reset_s)
    return [(name, b"%d" % value) for name, value in zip(LEGACY, values, strict=True)]


def facts(plan: Plan, open_now: Count, now: float) -> list[dict[str, Any]]:
    """Give every limit with what is left of it; None where that depends on the connection."""
    counted = {counter.limit: counter for counter in plan.shared()}
    opened = dict([*plan.open, *plan.jobs])
    found = []
    for limit in plan.limits:
        is_known = bool(plan.ip) or limit.scope != "ip"
        found.append(fact(limit, counted.get(limit) if is_known else None, now))
        if is_known and limit in opened:
            found[-1]["remaining"] = max(0, floor(limit.amount) - open_now(opened[limit]))
    return found


def fact(limit: Limit, counter: Counter | None, now: float) -> dict[str, Any]:
    """Give a limit with what is left of it; None where nobody counts it here."""
    remaining: float | None = None
    reset_s: float | None = None
    if counter is not None:
        left, reset_s = _standing(counter, now)
        remaining, reset_s = int(left + NEARLY), round(reset_s, 3)
    return {
        "name": limit.name,
        "metric": limit.metric.value,
        "amount": limit.amount,
        "per": limit.per,
        "burst": limit.burst or limit.amount,
        "scope": limit.scope,
        "exceed": limit.exceed,
        "mode": limit.mode,
        "remaining": remaining,
        "reset_s": reset_s,
    }


def _standing(counter: Counter, now: float) -> tuple[float, float]:
    remaining, reset_s = counter.state(now)
    return remaining, _month_left_s() if counter.is_month and not reset_s else reset_s


def _counters(plan: Plan, is_http: bool) -> Iterator[Counter]:
    for metric in HTTP_METRICS if is_http else SOCKET_METRICS:
        for counter in plan.by_metric.get(metric, ()):
            if counter.limit.mode != "shadow":
                yield counter


def _left(head: str, counter: Counter, now: float) -> str:
    """Say what is left of one limit."""
    remaining, reset_s = _standing(counter, now)
    left = min(INTEGER_MAX, int(remaining + NEARLY))
    if not left:
        # Retry-After must not be earlier than this, and it names the next that is let through.
        reset_s = min(reset_s, counter.wait_s(1, now)) or reset_s
    return f"{head}{left};t={ceil(reset_s)}"


def _policy(limit: Limit) -> str:
    text = f'"{limit.name}";q={_integer(limit.amount)}'
    if limit.per is not None:
        text += f";w={max(1, round(limit.per)) if isinstance(limit.per, int | float) else MONTH_S}"
    if limit.metric in UNITS:
        text += f';qu="{UNITS[limit.metric]}"'
    return text


def _month_left_s() -> float:
    """Say how long the month still lasts, by our clock: nobody asked the store yet. It is told, nothing rests on it."""
    now = time.time()
    return month_ends_at(now) - now


def _integer(amount: float) -> int:
    return min(INTEGER_MAX, floor(amount))
