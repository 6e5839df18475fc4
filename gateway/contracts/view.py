"""What one key may use according to one snapshot: the input of the documents."""

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
class PublicUrls:
    """The URLs at which callers reach the gateway."""

    public_url: str
    mqtt_url: str = ""
    """Empty if there is no MQTT listener."""


@dataclass(frozen=True, slots=True)
class View:
    """The caller of a document, and the configuration from which it is built."""

    caller: Principal
    urls: PublicUrls
    channels: tuple[Channel, ...] = ()
    routes: tuple[Route, ...] = ()
    subjects: Mapping[str, Latest] = field(default_factory=dict)
    """Latest schemas of the registry by subject, for channels that name a subject."""

    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Schemas of the inputs of job types, as far as they are known."""

    def may(self, verb: Verb, name: str) -> bool:
        """Return whether the key has this right on at least one address of a template."""
        return may(self.caller, verb, name)

    def may_any(self, verb: Verb) -> bool:
        """Return whether the key has this right on any name."""
        return any(scope == "*" or scope.partition(":")[0] in (verb.value, "*") for scope in self.caller.scopes)


def format_limits(limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """Return limits in the format of the management API."""
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
        for limit in limits
    ]


def _whole(amount: float | str | None) -> float | str | None:
    """Return a whole number as an integer: 20, not 20.0."""
    return int(amount) if isinstance(amount, float) and amount.is_integer() else amount


class Names:
    """Allocates unique names for the parts of a document, of letters, digits and ``_.-``."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def allocate(self, text: str) -> str:
        """Return an unused name that resembles the text."""
        stem = name = _UNFIT.sub("-", text).strip("-")[:NAME_MAX_CHARS] or "root"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name
