"""What every connector is: a source that gives records and learns which are safe, or a sink that takes events."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.log.event import JSON_TYPE, Event

Options = Mapping[str, Any]

READ_WAIT_S = 1.0
"""How long a source waits for something to read."""
BATCH_MAX = 500
CONNECT_TIMEOUT_S = 10.0
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
VARIABLE_PREFIX = "CONNECTOR_"
"""Options may name only such variables of the environment: the gateway's own secrets are not for other brokers."""
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Broken(Exception):
    """The broker cannot be used as it is: not reached, not let in, or no such topic. It is tried again."""


class Unwritable(Exception):
    """The broker will never take this event. The others are not touched by it."""

    def __init__(self, event: Event, why: str) -> None:
        super().__init__(why)
        self.event = event


@dataclass(frozen=True, slots=True)
class Record:
    """One message of another broker."""

    id: str
    """The same whenever the broker gives this message again, and no other's: topic, partition and offset, say."""
    data: bytes
    handle: Any = None
    """What the source needs to commit it."""
    places: Mapping[str, str] = field(default_factory=dict)
    """What may stand in an address: ``topic``, ``key``, ``subject``, …"""
    content_type: str = JSON_TYPE
    attributes: Mapping[str, str] = field(default_factory=dict)
    """CloudEvents attributes, without prefix."""
    traceparent: str | None = None


class Source(Protocol):
    """Gives what a broker holds for us, and forgets nothing until it is told."""

    async def open(self) -> None:
        """Connect. Raises Broken."""

    async def read(self) -> Sequence[Record]:
        """Give what there is, in order, or nothing after a while. Raises Broken."""

    async def commit(self, records: Sequence[Record]) -> None:
        """Take it that all that was read up to the last of these is safe. Raises Broken."""

    async def close(self) -> None:
        """Disconnect; what was not committed comes again."""


class Sink(Protocol):
    """Puts events into a broker."""

    async def open(self) -> None:
        """Connect. Raises Broken."""

    async def write(self, events: Sequence[Event]) -> None:
        """Return once the broker has all of them, in this order. Raises Broken, or Unwritable for one of them."""

    async def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a connector."""

    name: str
    check: Callable[[Any], bool]
    says: str
    """What it must be, for who gave something else."""
    default: Any = None
    is_required: bool = False
    is_secret: bool = False
    """Only as ``${CONNECTOR_…}``: secrets are in the environment, and in no table, log or export."""


def text(name: str, **more: Any) -> Option:
    """Declare an option that is a text."""
    return Option(name, lambda value: isinstance(value, str) and 0 < len(value) <= 1000, "a text", **more)


def whole(name: str, least: int, most: int, **more: Any) -> Option:
    """Declare an option that is a whole number."""
    return Option(
        name,
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
        f"a whole number from {least} to {most}",
        **more,
    )


def flag(name: str, **more: Any) -> Option:
    """Declare an option that is true or false."""
    return Option(name, lambda value: isinstance(value, bool), "true or false", **more)


def one_of(name: str, *values: str, **more: Any) -> Option:
    """Declare an option that is one of a few words."""
    return Option(name, lambda value: value in values, f"one of {', '.join(values)}", **more)


def faults(options: Any, known: Sequence[Option]) -> dict[str, str]:
    """Say what is wrong with options as they were given, by the name of each."""
    if not isinstance(options, Mapping):
        return {"": "An object."}
    by_name = {option.name: option for option in known}
    found = {name: f"Unknown option; there are {', '.join(by_name)}." for name in options if name not in by_name}
    for option in known:
        value = options.get(option.name)
        if value is None:
            if option.is_required:
                found[option.name] = "Is needed."
            continue
        fault = _fault(option, value)
        if fault:
            found[option.name] = fault
    return found


def _fault(option: Option, value: Any) -> str:
    variables = VARIABLE.findall(value) if isinstance(value, str) else []
    strangers = [name for name in variables if not name.startswith(VARIABLE_PREFIX)]
    if strangers:
        return f"May name only variables that begin with {VARIABLE_PREFIX}, not {strangers[0]}."
    if option.is_secret and not (isinstance(value, str) and VARIABLE.fullmatch(value)):
        return f"Is a secret: name a variable of the environment, as ${{{VARIABLE_PREFIX}{option.name.upper()}}}."
    return "" if option.check(value) else f"Must be {option.says}."


def filled(options: Options, known: Sequence[Option]) -> dict[str, Any]:
    """Give all options, with defaults and with what the environment says. Raises Broken for a missing variable."""
    return {option.name: _from_environment(options.get(option.name, option.default)) for option in known}


def _from_environment(value: Any) -> Any:
    if not isinstance(value, str):
        return value

    def look_up(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise Broken(f"the variable {found[1]} is not set") from None

    return VARIABLE.sub(look_up, value)


def placed(template: str, places: Mapping[str, str]) -> str:
    """Fill ``{name}`` places of a text. Raises KeyError for one that is not there."""
    return _PLACE.sub(lambda found: places[found[1]], template)


def event_places(event: Event) -> dict[str, str]:
    """Give what may stand in the name that an event is written under."""
    return {"address": event.address, "channel": event.channel, "type": event.type}
