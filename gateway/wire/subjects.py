"""Converts channel addresses to NATS subjects and back, by the mapping that NATS uses for MQTT topics.

A level of an address is a token of the subject. An empty level becomes ``/`` and a dot inside a level ``//``. What NATS
does not take in a token, and what it could take for a wildcard, becomes ``/`` and two hexadecimal digits for each byte:
whitespace, control characters, ``*`` and ``>``. As no level contains a slash, the mapping is reversible.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from gateway.concurrency.short_cache import short_cache

LIVE_PREFIX = "_apimgmt.live."
STORED_PREFIX = "_apimgmt.events."
ADDRESS_MAX_BYTES = 1024
_RESERVED = frozenset({"_apimgmt", "_INBOX"})
_NOT_IN_MQTT = re.compile(r"[\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"[\s\x00-\x1f\x7f-\x9f*>]")
_ESCAPE = re.compile(r"//|(?:/[0-9A-F]{2})+")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*?)(\.\.\.)?\}")
_LITERAL, _ONE_LEVEL, _REST = range(3)


class AddressError(ValueError):
    """The text is not a valid address, template or filter; the message is safe to show to the caller."""


@short_cache(4_096)
def subject_of(address: str) -> str:
    """Return the subject of a concrete address. Raises AddressError."""
    levels = _levels(address)
    if "+" in levels or "#" in levels:
        raise AddressError("the address of a publish has no wildcards")
    return ".".join(map(_token, levels))


@short_cache(4_096)
def address_of(subject: str) -> str:
    """Return the address of a subject; the inverse of :func:`subject_of`."""
    return "/".join("" if part == "/" else _ESCAPE.sub(_unescaped, part) for part in subject.split("."))


def filters_of(mqtt_filter: str) -> tuple[str, ...]:
    """Return the subject filters that together match the same as an MQTT topic filter. Raises AddressError.

    ``a/#`` also matches its parent ``a`` (MQTT 5, 4.7.1.2), which needs a second filter.
    """
    levels = _levels(mqtt_filter)
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise AddressError("`#` must be a whole level, and the last one of a filter")
    if any("+" in level and level != "+" for level in levels):
        raise AddressError("`+` must be a whole level of a filter")
    tokens = [{"+": "*", "#": ">"}.get(level) or _token(level) for level in levels]
    if tokens[-1] == ">" and len(tokens) > 1:
        return ".".join(tokens), ".".join(tokens[:-1])
    return (".".join(tokens),)


@short_cache(4_096)
def reading_filter(address: str) -> str:
    """Return the subject filter of what a reader asks for. Raises AddressError.

    That is a concrete address, or one with ``+`` or ``{parameter}`` for a level and ``#`` or ``{rest...}`` for the last
    ones. A level in braces that is no parameter, as a GUID may be, stands for itself.
    """
    *levels, last = _levels(address)
    if "#" in levels or any(_kind(level) == _REST for level in levels):
        raise AddressError("`#` and `{rest...}` must be the last level")
    return ".".join([*map(_filter_token, levels), _filter_token(last)])


def filled(address: str, values: Mapping[str, str]) -> str:
    """Return an address with values for its parameters; a parameter without a value stays. Raises AddressError.

    A value stands for itself: one level, or the levels of a rest, and no wildcard. Otherwise it could lead to addresses
    that the template does not mean.
    """
    return "/".join([_filled_level(level, values) for level in address.split("/")])


def _filled_level(level: str, values: Mapping[str, str]) -> str:
    kind = _kind(level)
    value = values.get(level[1:-1].removesuffix("...")) if kind != _LITERAL else None
    if value is None:
        return level
    levels = value.split("/")
    if kind == _ONE_LEVEL and (len(levels) > 1 or not value):
        raise AddressError(f"The value of {level} is one level of an address, without a slash")
    if any(part in ("+", "#") or _kind(part) != _LITERAL for part in levels):
        raise AddressError(f"The value of {level} is no wildcard or parameter")
    return value


def is_pattern(subject_filter: str) -> bool:
    """Return whether a subject filter can match more than one subject."""
    return subject_filter.endswith(">") or "*" in subject_filter


def meet(one: str, other: str) -> str | None:
    """Return the subject filter that matches exactly what both filters match, or None if that is nothing."""
    left, right = one.split("."), other.split(".")
    common: list[str] = []
    for position, (mine, theirs) in enumerate(zip(left, right, strict=False)):
        if mine == ">":
            return ".".join([*common, *right[position:]])
        if theirs == ">":
            return ".".join([*common, *left[position:]])
        if mine != theirs and "*" not in (mine, theirs):
            return None
        common.append(theirs if mine == "*" else mine)
    return ".".join(common) if len(left) == len(right) else None


def live(subject: str) -> str:
    """Return the core NATS subject to which JetStream republishes each stored event."""
    return LIVE_PREFIX + subject


def stream_of(channel_address: str) -> str:
    """Return the name of a channel's stream."""
    return "CH_" + hashlib.sha256(channel_address.encode()).hexdigest()[:16]


def stored_prefix(stream: str) -> str:
    """Return what the subjects of a channel's events begin with in its stream, so that no two channels share one."""
    return f"{STORED_PREFIX}{stream}."


def address_subject(subject: str) -> str:
    """Return the subject of an event's address, from the one that the event is stored or republished at."""
    if subject.startswith(STORED_PREFIX):
        return subject.split(".", 3)[3]
    return subject.removeprefix(LIVE_PREFIX)


@dataclass(frozen=True, slots=True)
class Template:
    """A channel's address: some levels may be ``{parameters}``, and the last a ``{rest...}`` of one level or more."""

    address: str
    subject: str
    """Its subject filter, with ``*`` for each parameter and ``>`` for the rest."""
    parameters: tuple[str, ...]
    rank: tuple[int, ...]
    """Orders templates: of those that match an address, the one with the lowest rank is the most specific.

    Level by level from the left, a literal comes before a parameter, and a parameter before a rest.
    """
    _tokens: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse a channel's address. Raises AddressError."""
        levels = _levels(address)
        kinds = tuple(map(_kind, levels))
        for level, kind in zip(levels, kinds, strict=True):
            if kind == _LITERAL and ("{" in level or "}" in level or level in ("+", "#")):
                raise AddressError("a parameter must be a whole level: `sensors/{deviceId}`")
        if _REST in kinds[:-1]:
            raise AddressError("a rest such as `{path...}` must be the last level")
        names = [level[1:-1].removesuffix("...") for level, kind in zip(levels, kinds, strict=True) if kind]
        if len(set(names)) != len(names):
            raise AddressError("a parameter name is used twice")
        tokens = tuple(map(_filter_token, levels))
        return cls(address, ".".join(tokens), tuple(names), kinds, tokens)

    def covers(self, subject_filter: str) -> bool:
        """Return whether it matches every address that a subject filter matches. A parameter takes no empty level."""
        parts = subject_filter.split(".")
        for position, own in enumerate(self._tokens):
            if own == ">":
                return len(parts) > position
            if position >= len(parts) or parts[position] == ">":
                return False
            if own != parts[position] and (own != "*" or parts[position] == "/"):
                return False
        return len(parts) == len(self._tokens)


def _levels(address: str) -> list[str]:
    if not address:
        raise AddressError("an address must not be empty")
    if _NOT_IN_MQTT.search(address):
        raise AddressError("an address must not contain U+0000, and must be valid Unicode")
    if len(address.encode()) > ADDRESS_MAX_BYTES:
        raise AddressError(f"an address has at most {ADDRESS_MAX_BYTES} bytes")
    levels = address.split("/")
    if address.startswith("$") or levels[0] in _RESERVED:
        raise AddressError(
            "addresses that begin with `$`, or whose first level is `_apimgmt` or `_INBOX`, are reserved"
        )
    return levels


def _kind(level: str) -> int:
    found = _PARAMETER.fullmatch(level) if level.startswith("{") else None
    if found is None:
        return _LITERAL
    return _REST if found[2] else _ONE_LEVEL


def _filter_token(level: str) -> str:
    if level in ("+", "#"):
        return "*" if level == "+" else ">"
    kind = _kind(level)
    return _token(level) if kind == _LITERAL else "*" if kind == _ONE_LEVEL else ">"


def _token(level: str) -> str:
    return _ESCAPED.sub(_escaped, level.replace(".", "//")) or "/"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"/{byte:02X}" for byte in found[0].encode())


def _unescaped(found: re.Match[str]) -> str:
    return "." if found[0] == "//" else bytes.fromhex(found[0].replace("/", "")).decode(errors="replace")
