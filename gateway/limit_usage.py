"""What limits and policies did to callers since usage last asked: refusals, what shadows would have refused, levels."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gateway.counters import Counter

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.snapshot import Limit

KINDS_MAX = 5_000
"""Different labels a flush; what comes past it is counted as dropped, so that a flood of names costs no memory."""
NEAR = 0.5
"""From this share on a limit's level is told."""
LEVELS_MAX = 200

Label = tuple[str, str, str, str, str, str]
"""Consumer, name of the limit or policy, scope, mode, route, reason."""


class LimitUsage:
    """Counts by label; adding is arithmetic."""

    def __init__(self) -> None:
        self.dropped = 0
        self._refused: dict[Label, int] = {}
        self._shadowed: dict[Label, int] = {}
        self._unshared: dict[Label, float] = {}

    def refused(self, limit: Limit, consumer: str) -> None:
        """Count that a limit refused something."""
        self._add(self._refused, _label(limit, consumer), 1)

    def shadowed(self, limit: Limit, consumer: str) -> None:
        """Count that a limit in shadow mode would have."""
        self._add(self._shadowed, _label(limit, consumer), 1)

    def let_through(self, limit: Limit, consumer: str, amount: float) -> None:
        """Count what a limit let through while the store was away."""
        if amount > 0:
            self._add(self._unshared, _label(limit, consumer), amount)

    def note(self, call: Call, policy: str, reason: str) -> None:
        """Count that a policy in shadow mode would have refused a call or message, or answered it by itself."""
        consumer = call.principal.consumer if call.principal is not None else ""
        self._add(self._shadowed, (consumer, policy, "policy", "shadow", call.target, reason), 1)

    def take(self, levels: Iterable[tuple[str, Counter, float]]) -> list[dict[str, Any]]:
        """Give what there is to say, as usage batches carry it, and begin anew.

        ``levels`` are the limits that callers are near, as (consumer, counter, now).
        """
        minute = int(time.time() // 60 * 60)
        refused, self._refused = self._refused, {}
        shadowed, self._shadowed = self._shadowed, {}
        unshared, self._unshared = self._unshared, {}
        records = {
            label: {
                **_named(label, minute),
                "refused": refused.get(label, 0),
                "shadowed": shadowed.get(label, 0),
                "unshared": round(unshared.get(label, 0.0), 3),
                "level": None,
                "left": None,
                "resets_at": None,
            }
            for label in {**refused, **shadowed, **unshared}
        }
        for consumer, counter, now in levels:
            _tell_level(records, minute, consumer, counter, now)
        return list(records.values())

    def _add(self, counts: dict[Label, Any], label: Label, amount: float) -> None:
        if label in counts:
            counts[label] += amount
        elif len(counts) < KINDS_MAX:
            counts[label] = amount
        else:
            self.dropped += 1


def near(counters: Iterable[Counter], now: float) -> list[tuple[str, Counter, float]]:
    """Give the counters of which half or more is used up, the fullest first."""
    levels = [(_level(counter, now), counter) for counter in {counter.key: counter for counter in counters}.values()]
    levels = sorted((each for each in levels if each[0] >= NEAR), key=lambda each: -each[0])
    return [(counter.label, counter, now) for _, counter in levels[:LEVELS_MAX]]


def _level(counter: Counter, now: float) -> float:
    left, _ = counter.state(now)
    return min(1.0, max(0.0, 1 - left / counter.size)) if counter.size > 0 else 1.0


def _tell_level(records: dict[Label, dict[str, Any]], minute: int, consumer: str, counter: Counter, now: float) -> None:
    label = _label(counter.limit, consumer)
    left, reset_s = counter.state(now)
    level = round(_level(counter, now), 4)
    record = records.setdefault(
        label, {**_named(label, minute), "refused": 0, "shadowed": 0, "unshared": 0.0, "level": None}
    )
    if record["level"] is None or level > record["level"]:
        record |= {"level": level, "left": max(0, int(left)), "resets_at": round(time.time() + reset_s, 1)}


def _label(limit: Limit, consumer: str) -> Label:
    return (consumer, limit.name, limit.scope, limit.mode, "", "")


def _named(label: Label, minute: int) -> dict[str, Any]:
    names = ("consumer", "name", "scope", "mode", "route", "reason")
    return {"minute": minute, **dict(zip(names, label, strict=True))}
