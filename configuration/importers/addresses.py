"""Convert an address of an AsyncAPI document to the addresses of channels, whose parameters are whole levels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

ADDRESSES_MAX = 100
"""Addresses that one address of a document may stand for."""
_PARAMETER = re.compile(r"\{([^{}]*)\}")
_DOT = re.compile(r"\.(?![^{}]*\})")
"""A dot outside of parameters."""
_QUERY = re.compile(r"\?[^/]*[={]")
_REST = "{rest...}"

Values = Mapping[str, Sequence[str]]
"""The values that parameters are restricted to, by name."""


@dataclass(frozen=True)
class Addresses:
    """The addresses that one address stands for, and how they differ from it; empty if they do not."""

    addresses: list[str]
    note: str = ""


def addresses_of(written: str, values: Values) -> Addresses:
    """Return the addresses of the channels for one that a document describes.

    A parameter within a level, as in ``orders-{env}``, is replaced by each of its values. Without them, its whole level
    becomes the parameter, which takes more addresses. Raises ValueError where that would take every address.
    """
    address, notes = written, []
    if query := _QUERY.search(written):
        address, notes = written[: query.start()], ["a query is no part of an address"]
    levels = _levels(address)
    within = [name for level in levels if _is_mixed(level) for name in _PARAMETER.findall(level)]
    listed = {name: values[name] for name in dict.fromkeys(within) if name in values}
    if prod(map(len, listed.values())) > ADDRESSES_MAX:
        listed = {}
    addresses: dict[str, None] = {}
    for chosen in product(*listed.values()):
        given = dict(zip(listed, chosen, strict=True))
        filled = [_filled(level, given) for level in levels]
        if any(map(_is_mixed, filled)):
            notes.append("a parameter is a whole level, so that more addresses are taken")
        addresses[_address(filled)] = None
    return Addresses(list(addresses), "; ".join(dict.fromkeys(notes)))


def shape_of(address: str) -> str:
    """Return an address without the names of its parameters."""
    return _PARAMETER.sub(lambda found: "{...}" if found[0].endswith("...}") else "{}", address)


def parameters_in(address: str) -> list[str]:
    """Return the names of the parameters of a channel's address, in order."""
    return [name.removesuffix("...") for name in _PARAMETER.findall(address)]


def parameter_name(name: str) -> str:
    """Return the name of a parameter in the characters that the address of a channel allows."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return cleaned if re.match(r"[A-Za-z_]", cleaned) else f"_{cleaned}"


def _levels(address: str) -> list[str]:
    """Return the levels of an address, with ``+`` and ``#`` for wildcards.

    Levels are separated by dots in a topic with parameters, ``a.{b}.c``, and in a pattern of AMQP or NATS, ``a.*.c``.
    """
    if "/" in address:
        return address.split("/")
    words = _DOT.split(address)
    if len(words) > 1 and (_PARAMETER.search(address) or {"*", "#", ">"} & {*words}):
        return [{"*": "+", ">": "#"}.get(word, word) for word in words]
    return [address]


def _is_mixed(level: str) -> bool:
    """Return whether a level has parameters and text, or several parameters."""
    return bool(_PARAMETER.search(level)) and not _PARAMETER.fullmatch(level)


def _filled(level: str, given: Mapping[str, str]) -> str:
    return _PARAMETER.sub(lambda found: given.get(found[1], found[0]), level)


def _address(levels: list[str]) -> str:
    converted: list[str] = []
    for number, level in enumerate(levels, 1):
        name = f"level{number}" if level == "+" else "_".join(_PARAMETER.findall(level))
        if level == "#" and number == len(levels):
            converted.append(_REST)
        elif not name:
            converted.append(level)
        elif name.endswith("..."):
            converted.append(f"{{{parameter_name(name[:-3])}...}}")
        else:
            converted.append(_unused(parameter_name(name), converted))
    if any(map(_is_mixed, levels)) and all(map(_PARAMETER.fullmatch, converted)):
        raise ValueError(
            "a parameter is a whole level, and this one has no other; list the values of the parameter in an enum"
        )
    return "/".join(converted)


def _unused(name: str, taken: Sequence[str]) -> str:
    number, level = 1, f"{{{name}}}"
    while level in taken:
        number += 1
        level = f"{{{name}_{number}}}"
    return level
