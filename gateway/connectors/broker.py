"""The interfaces of connectors: a source of records, a sink of events, and the options that each declares."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gateway.log.event import Event

Options = Mapping[str, Any]

READ_WAIT_S = 1.0
"""How long a source waits for records."""
BATCH_MAX = 500
CONNECT_TIMEOUT_S = 10.0
HOLD_S = 4
"""How long a broker that hands out records for a time waits for them to be committed, or held for longer."""
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
VARIABLE_PREFIX = "CONNECTOR_"
"""Options may name only these environment variables, so that no broker gets the gateway's own secrets."""
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class BrokerUnavailable(Exception):
    """The broker cannot be used now: it is not reachable, denies access, or lacks the topic. It is tried again."""


class Unwritable(Exception):
    """The broker will never accept this event; others are not affected."""

    def __init__(self, event: Event, detail: str) -> None:
        super().__init__(detail)
        self.event = event


@dataclass(frozen=True, slots=True)
class Record:
    """One message of another broker."""

    id: str
    """An id that is the same at each redelivery and unique in the broker, such as topic, partition and offset."""
    data: bytes
    handle: Any = None
    """What the source needs to commit it."""
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """Values that an address may refer to: ``topic``, ``key``, ``subject``, …"""
    content_type: str = ""
    """The media type that it names; empty: that of the channel."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """CloudEvents attributes, without prefix."""
    traceparent: str | None = None


class Source(Protocol):
    """Reads the messages of a broker, which keeps them until they are committed."""

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable."""

    async def read(self) -> Sequence[Record]:
        """Return the available records in order, or none after ``READ_WAIT_S``. Raises BrokerUnavailable."""

    async def commit(self, records: Sequence[Record]) -> None:
        """Commit everything up to the last of these records. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Disconnect; records that were not committed are redelivered."""


@runtime_checkable
class HoldingSource(Source, Protocol):
    """A source whose broker hands out records for a time only, and hands them out again afterwards.

    The time is short, so that a source whose process was killed goes on soon; it is extended while records are held.
    """

    async def hold(self, records: Sequence[Record]) -> None:
        """Keep records for another ``HOLD_S``. Raises BrokerUnavailable."""


class Sink(Protocol):
    """Writes events to a broker."""

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable."""

    async def write(self, events: Sequence[Event]) -> None:
        """Write events in order; returns once all are confirmed. Raises BrokerUnavailable, and Unwritable."""

    async def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a connector."""

    name: str
    check: Callable[[Any], bool]
    expected: str
    """A description of valid values, for error messages."""
    default: Any = None
    is_required: bool = False
    is_secret: bool = False
    """It must be ``${CONNECTOR_…}``: secrets stay in the environment, and out of tables, logs and exports."""


def text(name: str, **more: Any) -> Option:
    """Declare an option that is a string."""
    return Option(name, lambda value: isinstance(value, str) and 0 < len(value) <= 1000, "a string", **more)


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
    """Declare an option that is one of these strings."""
    return Option(name, lambda value: value in values, f"one of {', '.join(values)}", **more)


def option_faults(options: Any, declared: Sequence[Option]) -> dict[str, str]:
    """Return an error message by the name of each invalid option."""
    if not isinstance(options, Mapping):
        return {"": "Must be an object."}
    by_name = {option.name: option for option in declared}
    faults = {name: f"Unknown option; the options are {', '.join(by_name)}." for name in options if name not in by_name}
    for option in declared:
        value = options.get(option.name)
        if value is None:
            if option.is_required:
                faults[option.name] = "Is required."
            continue
        fault = _fault(option, value)
        if fault:
            faults[option.name] = fault
    return faults


def _fault(option: Option, value: Any) -> str:
    variables = VARIABLE.findall(value) if isinstance(value, str) else []
    strangers = [name for name in variables if not name.startswith(VARIABLE_PREFIX)]
    if strangers:
        return f"May refer only to variables that begin with {VARIABLE_PREFIX}, not to {strangers[0]}."
    if option.is_secret and not (isinstance(value, str) and VARIABLE.fullmatch(value)):
        return f"Is a secret: refer to an environment variable, as in ${{{VARIABLE_PREFIX}{option.name.upper()}}}."
    return "" if option.check(value) else f"Must be {option.expected}."


def resolve_options(options: Options, declared: Sequence[Option]) -> dict[str, Any]:
    """Return all options with defaults and environment variables. Raises BrokerUnavailable for a missing variable."""
    return {option.name: _from_environment(options.get(option.name, option.default)) for option in declared}


def _from_environment(value: Any) -> Any:
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise BrokerUnavailable(f"the environment variable {match[1]} is not set") from None

    return VARIABLE.sub(look_up, value)


def fill_placeholders(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``{name}`` of a template. Raises KeyError for an unknown name."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def event_placeholders(event: Event) -> dict[str, str]:
    """Return the values that the name of an event's target may refer to."""
    return {"address": event.address, "channel": event.channel, "type": event.type}
