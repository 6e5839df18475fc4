"""What one key may use, as of one snapshot: what the documents are written from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.contracts.rights import may
from gateway.schemas.registered import Latest
from gateway.snapshot.documents import Channel, Limit, Route
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Verb

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
NAME_MAX_CHARS = 100


@dataclass(frozen=True, slots=True)
class Where:
    """At which addresses callers find the doors."""

    public_url: str
    mqtt_url: str = ""
    """Empty where there is no MQTT listener."""


@dataclass(frozen=True, slots=True)
class View:
    """Whose documents these are, and all that there is at that moment."""

    caller: Principal
    where: Where
    channels: tuple[Channel, ...] = ()
    routes: tuple[Route, ...] = ()
    subjects: Mapping[str, Latest] = field(default_factory=dict)
    """What channels that name a subject of the registry take their events' schema from."""

    def may(self, verb: Verb, name: str) -> bool:
        """Say whether the key has this right, on some address at least."""
        return may(self.caller, verb, name)

    def may_any(self, verb: Verb) -> bool:
        """Say whether the key has this right on anything at all."""
        return any(scope == "*" or scope.partition(":")[0] in (verb.value, "*") for scope in self.caller.scopes)


def limits(found: Iterable[Limit]) -> list[dict[str, Any]]:
    """Say limits as the management API does."""
    return [
        {
            "name": limit.name,
            "metric": limit.metric.value,
            "amount": _whole(limit.amount),
            "per": _whole(limit.per),
            "burst": _whole(limit.burst),
            "scope": limit.scope,
            "exceed": limit.exceed,
            "mode": limit.mode,
        }
        for limit in found
    ]


def _whole(amount: float | str | None) -> float | str | None:
    """Give a whole number as one: 20, not 20.0."""
    return int(amount) if isinstance(amount, float) and amount.is_integer() else amount


class Names:
    """Names for the parts of a document: letters, digits and ``_.-`` alone, and never the same one twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, text: str) -> str:
        """Give a name that is as near to the text as may be."""
        stem = name = _UNFIT.sub("-", text).strip("-")[:NAME_MAX_CHARS] or "root"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name
