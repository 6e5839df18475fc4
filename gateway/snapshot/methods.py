"""The methods of HTTP that a route takes: any token, whose case matters (RFC 9110 9.1)."""

from __future__ import annotations

from collections.abc import Iterable

ANY = "*"
"""Among the methods of a route: it takes every method that the gateway implements."""
NOT_IMPLEMENTED = frozenset({"CONNECT", "TRACE"})
"""Methods of no route: a tunnel would bypass limits, and an echo would show credentials to scripts."""


def allow_of(methods: Iterable[str]) -> str:
    """Return the value of ``Allow`` for methods: what takes GET takes HEAD."""
    methods = set(methods)
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def overlap(methods: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether a request may be for both of two lists of methods."""
    methods, others = frozenset(methods), frozenset(others)
    return ANY in methods or ANY in others or not methods.isdisjoint(others)


def takes(methods: tuple[str, ...], method: str) -> bool:
    """Return whether a list of methods, where none stands for all, has this one."""
    return method in methods or ((ANY in methods or not methods) and method not in NOT_IMPLEMENTED)
