"""How limits are told: the IETF ``RateLimit-Policy`` and ``RateLimit`` fields, and as JSON.

Structured fields (RFC 9651) of draft-ietf-httpapi-ratelimit-headers: a list of strings with parameters ``q`` (quota),
``w`` (window, whole seconds), ``qu`` (unit where it is not requests), ``r`` (remaining), ``t`` (seconds to all of it).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from gateway.budget import Plan
from gateway.call import Headers, Protocol
from gateway.counters import Counter, month_ends_at
from gateway.snapshot import Limit, Metric

HTTP_METRICS = (Metric.REQUESTS, Metric.BYTES_IN, Metric.BYTES_OUT)
SOCKET_METRICS = (
    Metric.CONNECTIONS, Metric.MESSAGES_IN, Metric.MESSAGES_OUT, Metric.BYTES_IN, Metric.BYTES_OUT,
)  # fmt: skip
UNITS = {
    Metric.BYTES_IN: "content-bytes",
    Metric.BYTES_OUT: "content-bytes",
    Metric.OPEN_CONNECTIONS: "concurrent-requests",
}
MONTH_S = 31 * 86_400
"""The longest month stands for a month where a window must be a number of seconds."""
INTEGER_MAX = 999_999_999_999_999
"""The largest integer that a structured field can carry."""

Count = Callable[[str], int]


def fields(plan: Plan, protocol: Protocol, open_now: Count, now: float) -> Headers:
    """Give both fields for a call of this protocol; none where no limit applies. Shadow limits are not told."""
    is_http = protocol is Protocol.HTTP
    policy = plan.policy.get(is_http)
    if policy is None:
        policy = plan.policy[is_http] = ", ".join(_policies(plan, is_http)).encode()
    if not policy:
        return []
    state = [
        f'"{counter.limit.name}";r={_integer(counter.remaining(now))};t={math.ceil(_reset_s(counter, now))}'
        for counter in _counters(plan, is_http)
    ]
    if not is_http:
        state += [
            f'"{limit.name}";r={max(0, _integer(limit.amount) - open_now(key))}' for limit, key in _open_limits(plan)
        ]
    return [(b"ratelimit-policy", policy), (b"ratelimit", ", ".join(state).encode())]


def facts(plan: Plan, open_now: Count, now: float) -> list[dict[str, Any]]:
    """Give every limit with what is left of it; None where that depends on the connection."""
    counted = {counter.limit: counter for counter in plan.shared()}
    opened = dict(plan.open)
    return [_fact(limit, counted.get(limit), opened, open_now, now, plan.ip) for limit in plan.limits]


def _fact(
    limit: Limit, counter: Counter | None, opened: dict[Limit, str], open_now: Count, now: float, ip: str
) -> dict[str, Any]:
    remaining: float | None = None
    reset_s: float | None = None
    if limit.scope == "ip" and not ip:
        pass
    elif counter is not None:
        remaining, reset_s = math.floor(counter.remaining(now)), round(_reset_s(counter, now), 3)
    elif limit in opened:
        remaining = max(0, math.floor(limit.amount) - open_now(opened[limit]))
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


def _counters(plan: Plan, is_http: bool) -> Iterator[Counter]:
    for metric in HTTP_METRICS if is_http else SOCKET_METRICS:
        for counter in plan.by_metric.get(metric, ()):
            if counter.limit.mode != "shadow":
                yield counter


def _open_limits(plan: Plan) -> Iterator[tuple[Limit, str]]:
    return ((limit, key) for limit, key in plan.open if limit.mode != "shadow")


def _policies(plan: Plan, is_http: bool) -> Iterator[str]:
    for counter in _counters(plan, is_http):
        yield _policy(counter.limit)
    if not is_http:
        for limit, _ in _open_limits(plan):
            yield _policy(limit)


def _policy(limit: Limit) -> str:
    text = f'"{limit.name}";q={_integer(limit.amount)}'
    if limit.per is not None:
        text += f";w={max(1, round(limit.per)) if isinstance(limit.per, int | float) else MONTH_S}"
    if limit.metric in UNITS:
        text += f';qu="{UNITS[limit.metric]}"'
    return text


def _reset_s(counter: Counter, now: float) -> float:
    if counter.is_month and counter.reset_at is None:
        return month_ends_at(time.time()) - time.time()
    return counter.reset_s(now)


def _integer(amount: float) -> int:
    return min(INTEGER_MAX, math.floor(amount))
