"""Converts channel addresses to NATS subjects and back, by the mapping that NATS uses for MQTT topics.

A level of an address is a token of the subject. An empty level becomes ``/`` and a dot inside a level ``//``; as no
level contains a slash, the mapping is reversible. Levels that are ``*`` or ``>`` would be wildcards in NATS, and are
refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

from gateway.concurrency.short_cache import short_cache

LIVE_PREFIX = "_apimgmt.live."
ADDRESS_MAX_BYTES = 1024
_RESERVED = ("_apimgmt", "_INBOX", "$")
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


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
    return "/".join("" if part == "/" else part.replace("//", ".") for part in subject.split("."))


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


def matches(subject_filter: str, subject: str) -> bool:
    """Return whether a NATS subject filter matches a subject."""
    patterns, parts = subject_filter.split("."), subject.split(".")
    for position, pattern in enumerate(patterns):
        if pattern == ">":
            return len(parts) > position
        if position >= len(parts) or pattern not in ("*", parts[position]):
            return False
    return len(patterns) == len(parts)


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


def overlap(one: str, other: str) -> bool:
    """Return whether two subject filters can match the same subject."""
    return meet(one, other) is not None


def live(subject: str) -> str:
    """Return the core NATS subject to which JetStream republishes each stored event."""
    return LIVE_PREFIX + subject


def stream_of(channel_address: str) -> str:
    """Return the name of a channel's stream."""
    return "CH_" + hashlib.sha256(channel_address.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Template:
    """A channel's address, of which some levels may be ``{parameters}``."""

    address: str
    subject: str
    """Its subject filter, with ``*`` for each parameter."""
    parameters: tuple[str, ...]
    _tokens: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse a channel's address. Raises AddressError."""
        levels = _levels(address)
        parameters: list[str] = []
        tokens: list[str] = []
        for level in levels:
            parameter = _PARAMETER.fullmatch(level)
            if parameter:
                parameters.append(parameter[1])
                tokens.append("*")
                continue
            if "{" in level or "}" in level or level in ("+", "#"):
                raise AddressError("a parameter must be a whole level: `sensors/{deviceId}`")
            tokens.append(_token(level))
        if len(set(parameters)) != len(parameters):
            raise AddressError("a parameter name is used twice")
        return cls(address, ".".join(tokens), tuple(parameters), tuple(tokens))

    def match(self, subject: str) -> dict[str, str] | None:
        """Return the values of the parameters if the subject of a concrete address matches, else None."""
        tokens = subject.split(".")
        if len(tokens) != len(self._tokens):
            return None
        values: list[str] = []
        for pattern, token in zip(self._tokens, tokens, strict=True):
            if pattern == "*":
                values.append(address_of(token))
            elif pattern != token:
                return None
        return dict(zip(self.parameters, values, strict=True))


def _levels(address: str) -> list[str]:
    if not address:
        raise AddressError("an address must not be empty")
    if _UNSAFE.search(address):
        raise AddressError("an address must not contain spaces or control characters")
    if len(address.encode()) > ADDRESS_MAX_BYTES:
        raise AddressError(f"an address has at most {ADDRESS_MAX_BYTES} bytes")
    if address.startswith(_RESERVED):
        raise AddressError("addresses that begin with `_apimgmt`, `_INBOX` or `$` are reserved")
    levels = address.split("/")
    if "*" in levels or ">" in levels:
        raise AddressError("a level must not be `*` or `>`, which are wildcards of the event log")
    return levels


def _token(level: str) -> str:
    return level.replace(".", "//") or "/"
