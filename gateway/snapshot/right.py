"""Rights, which scopes cover, and the intervals of conflation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.refusals import Reason, Refused

MIN_S, MAX_S = 0.01, 3600.0
_INTERVAL = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)(ms|s|m)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Verb(StrEnum):
    """The verb of a scope: the part before its colon."""

    CALL = "call"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class Right:
    """One right that a call needs: ``publish:sensors/temperature``."""

    verb: Verb
    name: str
    text: str = field(init=False, compare=False)
    """The right written as a scope."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.verb.value}:{self.name}")

    def __str__(self) -> str:
        return self.text


def interval_of(text: str) -> float:
    """Parse an interval such as ``500ms``, ``1s`` or ``2m`` to seconds. Raises Refused ``invalid-request``."""
    found = _INTERVAL.fullmatch(text)
    interval_s = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not MIN_S <= interval_s <= MAX_S:
        raise Refused(
            Reason.INVALID_REQUEST, "`conflate` is an interval from `10ms` to `60m`, as `1s`.", cause="invalid-interval"
        )
    return interval_s
