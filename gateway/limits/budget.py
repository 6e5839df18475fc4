"""What one call may spend from: the counters of its consumer, key, IP and connection, by metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.limits.counters import MONTH, Counter, Flood
from gateway.limits.open_slots import Slot
from gateway.limits.tallies import Level
from gateway.snapshot.picture import Limit, Metric
from gateway.snapshot.principal import Principal

Spending = tuple[Counter, float]
Counters = tuple[Counter, ...]

SPENT = (
    Metric.REQUESTS, Metric.CONNECTIONS, Metric.MESSAGES_IN, Metric.MESSAGES_OUT, Metric.BYTES_IN, Metric.BYTES_OUT,
    Metric.TOKENS_IN, Metric.TOKENS_OUT,
)  # fmt: skip
"""Metrics that are spent; the others are counted while open."""

DRY_RUNS = Limit(Metric.REQUESTS, 10, 1.0, burst=50)
"""A dry run (``/v1/me?would=``) is free up to this rate per process; beyond it, it counts as a request."""

OUTWARD = frozenset({Metric.MESSAGES_OUT, Metric.BYTES_OUT})


def scope_id(principal: Principal, ip: str, limit: Limit) -> str:
    """Return the id of the consumer, key or IP that spends from a limit together."""
    if limit.scope == "key" and principal.token is not None:
        # The key of a token names its issuer, which many consumers share: each consumer has a budget of its own.
        return f"{principal.key}:{principal.consumer}"
    return {"key": principal.key, "ip": ip}.get(limit.scope, principal.consumer)


def bucket_key(scope: str, name: str, limit: Limit) -> str:
    """Return the name of the shared bucket. A changed amount makes another bucket; a quota keeps what was used."""
    shape = "" if limit.per == MONTH else f":{limit.amount!r}:{limit.burst!r}"
    return f"lim:{{{scope}:{name}}}:{limit.name}{shape}"


class Plan:
    """The counters of one principal at one IP, which outlive a call."""

    __slots__ = (
        "_for_requests",
        "by_metric",
        "connection",
        "consumer",
        "dry_runs",
        "ip",
        "is_forgotten",
        "jobs",
        "limits",
        "open",
        "rendered",
        "spent",
        "used_at",
    )  # fmt: skip

    def __init__(self, principal: Principal, ip: str, counter: Callable[[Limit, str, str], Counter]) -> None:
        self.limits = principal.limits
        self.consumer = principal.consumer
        self.ip = ip
        self.used_at = 0.0
        self.is_forgotten = False
        """The limiter has dropped it, so that later calls count by another one."""
        self.dry_runs = Counter(DRY_RUNS, "", principal.consumer)
        self.rendered: dict[bool, Any] = {}
        """Its limits as header fields, rendered once (see ``gateway/limits/fields.py``)."""
        self.by_metric: dict[Metric, list[Counter]] = {}
        self.open: list[tuple[Limit, str]] = []
        """Limits of open connections, and the store's key of each."""
        self.jobs: list[tuple[Limit, str]] = []
        """Limits of open jobs, and the store's key of each."""
        self.connection: list[Limit] = []
        """Limits that count each connection apart."""
        for limit in sorted(principal.limits, key=_longest_first):
            name = scope_id(principal, ip, limit)
            if limit.metric not in SPENT:
                opened = self.jobs if limit.metric is Metric.OPEN_JOBS else self.open
                opened.append((limit, f"open:{{{limit.scope}:{name}}}:{limit.metric.value}"))
            elif limit.scope == "connection":
                self.connection.append(limit)
            else:
                key = bucket_key(limit.scope, name, limit)
                self.by_metric.setdefault(limit.metric, []).append(counter(limit, key, principal.consumer))

        self._for_requests: Budget | None = None
        self.spent = self.with_own({})
        """The counters by metric, in the order of ``SPENT``."""

    def request_budget(self, principal: Principal) -> Budget:
        """Return what a request spends from: one budget for all, unless a limit counts each connection apart."""
        budget = self._for_requests
        if budget is None:
            budget = Budget()
            budget.bind(self.limits, self, principal.consumer)
            if not self.connection:
                self._for_requests = budget
        return budget

    def with_own(self, own: dict[Limit, Counter]) -> tuple[Counters, ...]:
        """Return the counters by metric, with those of one connection."""
        return tuple(
            (*self.by_metric.get(metric, ()), *(counter for limit, counter in own.items() if limit.metric is metric))
            for metric in SPENT
        )

    def levels(self, open_now: Callable[[str], int], now: float) -> Iterator[Level]:
        """Yield the level of every budget that processes share."""
        for counter in self.shared():
            yield Level.of(counter, now)
        for limit, key in (*self.open, *self.jobs):
            yield Level(limit, key, self.consumer, limit.amount - open_now(key), limit.amount, None)

    def shared(self) -> Iterator[Counter]:
        """Yield all counters that processes share."""
        for counters in self.by_metric.values():
            yield from counters


class Budget:
    """What one call spends from, and the open slots that it holds."""

    __slots__ = (
        "_floods", "_own", "bytes_in", "bytes_out", "connections", "label", "limits", "messages_in", "messages_out",
        "open", "plan", "requests", "slots", "tokens_in", "tokens_out",
    )  # fmt: skip

    def __init__(self) -> None:
        self.limits: tuple[Limit, ...] | None = None
        self.plan: Plan | None = None
        self.label = ""
        self.open: list[tuple[Limit, str]] = []
        self.slots: list[Slot] = []
        self._own: dict[Limit, Counter] = {}
        self._floods: dict[Limit, Flood] = {}
        self.requests: Counters = ()
        self.connections: Counters = ()
        self.messages_in: Counters = ()
        self.messages_out: Counters = ()
        self.bytes_in: Counters = ()
        self.bytes_out: Counters = ()
        self.tokens_in: Counters = ()
        self.tokens_out: Counters = ()

    def bind(self, limits: tuple[Limit, ...], plan: Plan, consumer: str) -> None:
        """Spend from these counters from now on: at the start, and whenever the caller's limits change."""
        self.limits = limits
        self.plan = plan
        self.label = consumer
        self.open = plan.open
        own = {limit: self._own.get(limit) or Counter(limit, "", consumer) for limit in plan.connection}
        self._own = own
        (
            self.requests, self.connections, self.messages_in, self.messages_out, self.bytes_in, self.bytes_out,
            self.tokens_in, self.tokens_out,
        ) = plan.spent if not own else plan.with_own(own)  # fmt: skip

    def of(self, metric: Metric) -> Counters:
        counters: Counters = getattr(self, metric.value)
        return counters

    def must_close(self, blocked: list[Spending], now: float) -> bool:
        """Return whether a refusal closes the connection: by ``exceed: close``, or beyond ``close_at`` times a limit.

        Outward metrics never close it: what is sent to a caller is delayed instead.
        """
        closes = False
        for counter, cost in blocked:
            limit = counter.limit
            if limit.exceed == "close":
                closes = True
            elif limit.per != MONTH and limit.close_at > 0 and limit.metric not in OUTWARD:
                flood = self._floods.get(limit)
                if flood is None:
                    flood = self._floods[limit] = Flood(limit)
                closes = flood.rises(cost, now) or closes
        return closes


def _longest_first(limit: Limit) -> float:
    return -float(limit.per) if isinstance(limit.per, int | float) else float("-inf")
