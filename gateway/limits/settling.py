"""Settles a charge that touches several limits: all of them let it pass, or none is spent from.

The slow path beside :func:`.counters.spend`: it decides whether a caller is delayed or refused, by which limit, and
when the store is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from gateway.limits.budget import Budget, Spending
from gateway.limits.counters import MONTH, Counter
from gateway.limits.leasing import TokenLeasing
from gateway.limits.tallies import LimitUsage
from gateway.refusals import Reason, Refused

DELAY_MAX_S = 60.0
"""The longest that ``exceed: delay`` delays a message before it is refused."""
DELAY_REQUEST_MAX_S = 3.0
"""The longest that a request is delayed: its client waits for an answer."""
RECHECK_S = 0.5
"""How often a delayed caller checks whether its limits have changed."""


def _never() -> bool:
    return False


class Rebound(Exception):
    """The limits of a call changed while it waited for them."""


class Settling:
    """Charges limits that this process shares with others."""

    def __init__(self, leasing: TokenLeasing, usage: LimitUsage, clock: Callable[[], float]) -> None:
        self._leasing = leasing
        self._usage = usage
        self._clock = clock
        self._turns: WeakKeyDictionary[Counter, asyncio.Lock] = WeakKeyDictionary()
        """Callers delayed by one counter (``exceed: delay``) pass in the order of their arrival."""

    async def settle(
        self, budget: Budget, costs: list[Spending], delay_s: float, has_changed: Callable[[], bool] = _never
    ) -> list[Spending]:
        """Charge all or nothing, longest window first; lease tokens and wait where that may help.

        Returns what was charged: a limit in shadow mode that would have refused is left out. Raises Refused, and
        Rebound where ``has_changed`` returned True during the wait; nothing is charged then.
        """
        ends_at = self._clock() + delay_s
        is_refreshed = False
        costs = sorted(costs, key=_longest_first)
        while True:
            now = self._clock()
            lacking = [(counter, cost) for counter, cost in costs if counter.lacks(cost, now)]
            if not lacking:
                for counter, cost in costs:
                    counter.take(cost, now)
                return costs
            blocked = [spending for spending in lacking if spending[0].wait_s(spending[1], now) > 0]
            shadows = [spending for spending in blocked if spending[0].limit.mode == "shadow"]
            if not is_refreshed and (stale := [counter for counter, _ in blocked if counter.is_stale(now)]):
                # Retry-After depends on what other processes have spent: read that before a refusal states it.
                is_refreshed = True
                await self._leasing.refresh(stale)
            elif shadows:
                self.tally_shadows(shadows)
                costs = [spending for spending in costs if spending not in shadows]
            elif blocked:
                await self._wait_or_refuse(budget, blocked, ends_at, has_changed)
            else:
                await self._leasing.lease(lacking)

    async def _wait_or_refuse(
        self, budget: Budget, blocked: list[Spending], ends_at: float, has_changed: Callable[[], bool]
    ) -> None:
        now = self._clock()
        wait_s = max(counter.wait_s(cost, now) for counter, cost in blocked)
        if now + wait_s > ends_at or any(counter.limit.exceed != "delay" for counter, _ in blocked):
            raise self._refused(budget, blocked, wait_s, now)
        first, cost = blocked[0]
        try:
            async with asyncio.timeout(ends_at - now), self._turns.setdefault(first, asyncio.Lock()):
                while (wait_s := first.wait_s(cost, self._clock())) > 0:
                    if has_changed():
                        raise Rebound
                    await asyncio.sleep(min(wait_s, RECHECK_S))
        except TimeoutError:
            raise self._refused(budget, blocked, wait_s, now) from None

    def _refused(self, budget: Budget, blocked: list[Spending], wait_s: float, now: float) -> Refused:
        for counter, _ in blocked:
            self._usage.refused(counter.limit, counter.label)
        return _refusal(budget, blocked, wait_s, now)

    def tally_shadows(self, shadows: list[Spending]) -> None:
        """Tally what limits in shadow mode would have refused."""
        for counter, _ in shadows:
            self._usage.shadowed(counter.limit, counter.label)


def _longest_first(spending: Spending) -> float:
    per = spending[0].limit.per
    return -float(per) if isinstance(per, int | float) else float("-inf")


def _refusal(budget: Budget, blocked: list[Spending], wait_s: float, now: float) -> Refused:
    limit = blocked[0][0].limit
    is_quota = limit.per == MONTH
    per = "a month" if is_quota else f"{limit.per:g} s"
    return Refused(
        Reason.QUOTA_EXCEEDED if is_quota else Reason.RATE_LIMITED,
        f"The limit of {limit.amount:g} {limit.metric.value} per {per} is used up.",
        retry_after_s=-(-wait_s * 1000 // 1) / 1000,
        policies=tuple(counter.limit.name for counter, _ in blocked),
        fatal=budget.must_close(blocked, now),
    )
