"""What limits did since the last usage batch: refusals, what shadow modes would have refused, levels."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.limits.counters import Counter
    from gateway.snapshot.picture import Limit

logger = logging.getLogger(__name__)

KINDS_MAX = 5_000
"""The most labels per flush. Tallies beyond it are dropped and logged, so that a flood takes no memory."""
NEAR = 0.5
"""The share of a budget from which on its level is reported."""
LEVELS_MAX = 200

Label = tuple[str, str, str, str, str, str]
"""Consumer, name of the limit or policy, scope, mode, route, reason."""


@dataclass(slots=True)
class Tally:
    """What one limit, or one policy in shadow mode, did to one consumer."""

    refused: int = 0
    shadowed: int = 0
    unshared: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """How much of one budget is used up."""

    limit: Limit
    key: str
    """The budget's name in the store."""
    consumer: str
    left: float
    size: float
    reset_s: float | None
    """Seconds until all of it is left again; None if unknown."""

    @classmethod
    def of(cls, counter: Counter, now: float) -> Level:
        """Return the level of a counter."""
        left, reset_s = counter.state(now)
        return cls(counter.limit, counter.key, counter.label, left, counter.size, reset_s)

    @property
    def used(self) -> float:
        """The share that is used up, of 1."""
        return min(1.0, max(0.0, 1 - self.left / self.size)) if self.size > 0 else 1.0


class LimitUsage:
    """Counts by label, until the next usage batch takes them."""

    def __init__(self) -> None:
        self._dropped = 0
        self._tallies: dict[Label, Tally] = {}

    def refused(self, limit: Limit, consumer: str) -> None:
        self._tally(_label(limit, consumer)).refused += 1

    def shadowed(self, limit: Limit, consumer: str) -> None:
        """Count what a limit in shadow mode would have refused."""
        self._tally(_label(limit, consumer)).shadowed += 1

    def let_through(self, limit: Limit, consumer: str, amount: float) -> None:
        """Count what a limit let pass while the store was unavailable."""
        if amount > 0:
            self._tally(_label(limit, consumer)).unshared += amount

    def policy_shadowed(self, consumer: str, route: str, policy: str, reason: str) -> None:
        """Count a call or message that a policy in shadow mode would have refused or answered itself."""
        self._tally((consumer, policy, "policy", "shadow", route, reason)).shadowed += 1

    def take(self, levels: Iterable[Level]) -> list[dict[str, Any]]:
        """Return the counts and levels as records of a usage batch, and start from zero."""
        tallies, self._tallies = self._tallies, {}
        if self._dropped:
            logger.warning("limits: %d counts are not reported: too many consumers and limits at once", self._dropped)
            self._dropped = 0
        near: dict[Label, Level] = {}
        for level in levels:
            label = _label(level.limit, level.consumer)
            if label not in near or level.used > near[label].used:
                near[label] = level
        minute = int(time.time() // 60 * 60)
        labels = dict.fromkeys((*tallies, *near))
        return [_record(minute, label, tallies.get(label, Tally()), near.get(label)) for label in labels]

    def _tally(self, label: Label) -> Tally:
        tally = self._tallies.get(label)
        if tally is None:
            tally = Tally()
            if len(self._tallies) < KINDS_MAX:
                self._tallies[label] = tally
            else:
                self._dropped += 1
        return tally


def near(levels: Iterable[Level]) -> list[Level]:
    """Return the budgets of which ``NEAR`` or more is used up, each once, the fullest first."""
    by_key = {level.key: level for level in levels if level.used >= NEAR}
    return sorted(by_key.values(), key=lambda level: -level.used)[:LEVELS_MAX]


def _record(minute: int, label: Label, tally: Tally, level: Level | None) -> dict[str, Any]:
    names = ("consumer", "name", "scope", "mode", "route", "reason")
    record = {"minute": minute, **dict(zip(names, label, strict=True)), **asdict(tally)}
    record["unshared"] = round(tally.unshared, 3)
    if level is None:
        return record | {"level": None, "left": None, "resets_at": None}
    resets_at = None if level.reset_s is None else round(time.time() + level.reset_s, 1)
    return record | {"level": round(level.used, 4), "left": max(0, int(level.left)), "resets_at": resets_at}


def _label(limit: Limit, consumer: str) -> Label:
    return (consumer, limit.name, limit.scope, limit.mode, "", "")
