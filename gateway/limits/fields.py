"""Limits as reported to callers: the IETF ``RateLimit-Policy`` and ``RateLimit`` fields, and JSON.

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
from gateway.wire.header_fields import Headers, lines_of

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
"""The window of a calendar month where a number of seconds is required: that of the longest."""
INTEGER_MAX = 999_999_999_999_999
"""The largest integer that a structured field can carry."""

LEGACY = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")

RENDERED_FOR_S = 0.002
"""How long a rendered ``RateLimit`` value is used again."""
NEARLY = 1e-6
"""Rounding of instants must not hide a token."""

Count = Callable[[str], int]


class LimitFields:
    """The limits of one plan as fields for one kind of call: the constant part, and the sources of the rest."""

    __slots__ = ("_lines", "_value", "_value_at", "counters", "open", "policy")

    def __init__(self, plan: Plan, is_http: bool) -> None:
        counters = [*_counters(plan, is_http)]
        opened = [] if is_http else [(limit, key) for limit, key in plan.open if limit.mode != "shadow"]
        limits = [*(counter.limit for counter in counters), *(limit for limit, _ in opened)]
        self.policy = ", ".join(map(_policy, limits)).encode()
        self.counters = [(f'"{counter.limit.name}";r=', counter) for counter in counters]
        self.open = [(f'"{limit.name}";r=', _integer(limit.amount), key) for limit, key in opened]
        self._value = self._lines = b""
        self._value_at = float("-inf")

    def state(self, open_now: Count, now: float) -> bytes:
        """Return the value of ``RateLimit``, at most ``RENDERED_FOR_S`` old."""
        if now - self._value_at > RENDERED_FOR_S:
            self._render(open_now, now)
        return self._value

    def lines(self, open_now: Count, now: float) -> bytes:
        """Return both fields as the lines of a head, at most ``RENDERED_FOR_S`` old."""
        if now - self._value_at > RENDERED_FOR_S:
            self._render(open_now, now)
        return self._lines

    def _render(self, open_now: Count, now: float) -> None:
        self._value, self._value_at = self._state(open_now, now), now
        if self.policy:
            self._lines = lines_of(((b"ratelimit-policy", self.policy), (b"ratelimit", self._value)))

    def _state(self, open_now: Count, now: float) -> bytes:
        state = [_state(head, counter, now) for head, counter in self.counters]
        state += [f"{head}{max(0, amount - open_now(key))}" for head, amount, key in self.open]
        return ", ".join(state).encode()


def fields(plan: Plan, protocol: Protocol, open_now: Count, now: float) -> Headers:
    """Return both fields for a call of this protocol; none where no limit applies. Shadow limits are left out."""
    rendered = plan.rendered.get(protocol is Protocol.HTTP) or _rendered(plan, protocol)
    if not rendered.policy:
        return []
    return [(b"ratelimit-policy", rendered.policy), (b"ratelimit", rendered.state(open_now, now))]


def field_lines(plan: Plan, protocol: Protocol, open_now: Count, now: float) -> bytes:
    """Return what :func:`fields` does, as the lines of a head."""
    return (plan.rendered.get(protocol is Protocol.HTTP) or _rendered(plan, protocol)).lines(open_now, now)


def _rendered(plan: Plan, protocol: Protocol) -> LimitFields:
    is_http = protocol is Protocol.HTTP
    rendered = plan.rendered.get(is_http)
    if rendered is None:
        rendered = plan.rendered[is_http] = LimitFields(plan, is_http)
    return rendered


def with_own(headers: Headers, counters: Iterable[Counter], places: Mapping[Limit, int], now: float) -> Headers:
    """Return the fields with what this call alone has: limits of its route, and places left for open jobs."""
    values = dict(headers)
    states = {counter.limit: _state(f'"{counter.limit.name}";r=', counter, now) for counter in counters}
    states |= {limit: f'"{limit.name}";r={left}' for limit, left in places.items()}
    own = {b"ratelimit-policy": map(_policy, states), b"ratelimit": states.values()}
    for name, texts in own.items():
        before = [values[name]] if name in values else []
        values[name] = b", ".join([*before, *(text.encode() for text in texts)])
    return list(values.items())


def legacy_fields(plan: Plan | None, protocol: Protocol, own: Iterable[Counter], now: float) -> Headers:
    """Return ``X-RateLimit-*``, for clients that read no other, of the limit with the smallest share left.

    ``own`` are the limits of the call's route.
    """
    counters = [*own]
    if plan is not None:
        counters += [counter for _, counter in _rendered(plan, protocol).counters]
    if not counters:
        return []
    nearest = min(counters, key=lambda each: each.state(now)[0] / each.size)
    remaining, reset_s = _remaining(nearest, now)
    values = _integer(nearest.limit.amount), _integer(remaining + NEARLY), ceil(reset_s)
    return [(name, b"%d" % value) for name, value in zip(LEGACY, values, strict=True)]


def facts(plan: Plan, open_now: Count, now: float) -> list[dict[str, Any]]:
    """Return every limit with what is left of it; None where that depends on the connection."""
    counted = {counter.limit: counter for counter in plan.shared()}
    opened = dict([*plan.open, *plan.jobs])
    described = []
    for limit in plan.limits:
        is_known = bool(plan.ip) or limit.scope != "ip"
        described.append(fact(limit, counted.get(limit) if is_known else None, now))
        if is_known and limit in opened:
            described[-1]["remaining"] = max(0, floor(limit.amount) - open_now(opened[limit]))
    return described


def fact(limit: Limit, counter: Counter | None, now: float) -> dict[str, Any]:
    """Return a limit with what is left of it; None where this process does not count it."""
    remaining: float | None = None
    reset_s: float | None = None
    if counter is not None:
        left, reset_s = _remaining(counter, now)
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


def _remaining(counter: Counter, now: float) -> tuple[float, float]:
    remaining, reset_s = counter.state(now)
    return remaining, _month_left_s() if counter.is_month and not reset_s else reset_s


def _counters(plan: Plan, is_http: bool) -> Iterator[Counter]:
    for metric in HTTP_METRICS if is_http else SOCKET_METRICS:
        for counter in plan.by_metric.get(metric, ()):
            if counter.limit.mode != "shadow":
                yield counter


def _state(head: str, counter: Counter, now: float) -> str:
    """Return one item of ``RateLimit``."""
    remaining, reset_s = _remaining(counter, now)
    left = min(INTEGER_MAX, int(remaining + NEARLY))
    if not left:
        # ``t`` must not be later than Retry-After, which names the next token.
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
    """Return the seconds left of the month by this machine's clock, until the store has stated them. Informative."""
    now = time.time()
    return month_ends_at(now) - now


def _integer(amount: float) -> int:
    return min(INTEGER_MAX, floor(amount))
