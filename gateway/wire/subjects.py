"""Addresses of channels and subjects of NATS: one table, the same that NATS uses for MQTT topics.

A level of an address is a token of the subject. An empty level is ``/`` and a dot inside a level is ``//``, as no
level holds a slash: so the table can be read backwards. Levels that are ``*`` or ``>`` would act as wildcards
in NATS, and are refused before they reach it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

LIVE_PREFIX = "_apimgmt.live."
ADDRESS_MAX_BYTES = 1024
_RESERVED = ("_apimgmt", "_INBOX", "$")
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


class AddressError(ValueError):
    """The text is no address, template or filter; its message may be shown to the caller."""


@lru_cache(maxsize=4096)
def subject_of(address: str) -> str:
    """Give the subject of a concrete address. Raises AddressError."""
    levels = _levels(address)
    if "+" in levels or "#" in levels:
        raise AddressError("an address to publish to has no wildcards")
    return ".".join(map(_token, levels))


@lru_cache(maxsize=4096)
def address_of(subject: str) -> str:
    """Give the address whose subject this is; the inverse of :func:`subject_of`."""
    return "/".join("" if part == "/" else part.replace("//", ".") for part in subject.split("."))


def filters_of(mqtt_filter: str) -> tuple[str, ...]:
    """Give the subject filters that match what an MQTT topic filter matches. Raises AddressError.

    ``a/#`` also matches its parent ``a`` (MQTT 5, 4.7.1.2), which needs a second filter.
    """
    levels = _levels(mqtt_filter)
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise AddressError("`#` stands alone and last in a filter")
    if any("+" in level and level != "+" for level in levels):
        raise AddressError("`+` fills a whole level of a filter")
    tokens = [{"+": "*", "#": ">"}.get(level) or _token(level) for level in levels]
    if tokens[-1] == ">" and len(tokens) > 1:
        return ".".join(tokens), ".".join(tokens[:-1])
    return (".".join(tokens),)


def matches(subject_filter: str, subject: str) -> bool:
    """Say whether a subject filter of NATS matches a subject."""
    wanted, given = subject_filter.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


def meet(one: str, other: str) -> str | None:
    """Give the subject filter that matches what two of them both match; None where they have nothing in common."""
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
    """Say whether two subject filters can match the same subject."""
    return meet(one, other) is not None


def live(subject: str) -> str:
    """Give the core subject on which JetStream sends each stored event once more."""
    return LIVE_PREFIX + subject


def stream_of(channel_address: str) -> str:
    """Give the name of a channel's stream."""
    return "CH_" + hashlib.sha256(channel_address.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Template:
    """A channel's address: levels, some of them ``{parameters}``."""

    address: str
    subject: str
    """Its subject filter: ``*`` where the address has a parameter."""
    parameters: tuple[str, ...]
    _tokens: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read a channel's address. Raises AddressError."""
        levels = _levels(address)
        parameters: list[str] = []
        tokens: list[str] = []
        for level in levels:
            found = _PARAMETER.fullmatch(level)
            if found:
                parameters.append(found[1])
                tokens.append("*")
                continue
            if "{" in level or "}" in level or level in ("+", "#"):
                raise AddressError("a parameter fills a whole level: `sensors/{deviceId}`")
            tokens.append(_token(level))
        if len(set(parameters)) != len(parameters):
            raise AddressError("a parameter is named twice")
        return cls(address, ".".join(tokens), tuple(parameters), tuple(tokens))

    def match(self, subject: str) -> dict[str, str] | None:
        """Give the parameters' values where the subject of a concrete address matches, else None."""
        given = subject.split(".")
        if len(given) != len(self._tokens):
            return None
        values: list[str] = []
        for wanted, token in zip(self._tokens, given, strict=True):
            if wanted == "*":
                values.append(address_of(token))
            elif wanted != token:
                return None
        return dict(zip(self.parameters, values, strict=True))


def _levels(address: str) -> list[str]:
    if not address:
        raise AddressError("an address is not empty")
    if _UNSAFE.search(address):
        raise AddressError("an address has no spaces or control characters")
    if len(address.encode()) > ADDRESS_MAX_BYTES:
        raise AddressError(f"an address has at most {ADDRESS_MAX_BYTES} bytes")
    if address.startswith(_RESERVED):
        raise AddressError("addresses that begin with `_apimgmt`, `_INBOX` or `$` are reserved")
    levels = address.split("/")
    if "*" in levels or ">" in levels:
        raise AddressError("a level that is `*` or `>` is a wildcard of the event log, not a name")
    return levels


def _token(level: str) -> str:
    return level.replace(".", "//") or "/"
