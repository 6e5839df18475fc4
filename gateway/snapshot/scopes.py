"""Scopes: their syntax, and which rights they cover."""

from __future__ import annotations

import re

from gateway.concurrency.short_cache import short_cache

_NAME = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}"
_ADDRESS = r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}"
SCOPE = re.compile(rf"\*|(?:call|jobs):{_NAME}|(?:publish|subscribe):{_ADDRESS}")
"""A verb and a name, where ``*`` matches any text, ``{parameter}`` one level of an address, and ``{rest...}`` those
that follow."""
CONFLATE = "?conflate="
"""Separates a scope to subscribe from an interval, as in ``subscribe:trades?conflate=1s``."""
_LEVEL = re.compile(r"(?<=[/:])(\{[^/{}]*\})(?=/|\Z)")
_ONE_LEVEL = r"(?!(?:#|\{[^/{}]*\.\.\.\})(?:/|\Z))[^/]++"
"""A right to read ``a/#`` or ``a/{rest...}`` is one to more levels than one."""


@short_cache(8_192)
def is_covered(scopes: tuple[str, ...], right: str) -> bool:
    """Return whether one of the scopes covers a right, which is written as a scope is."""
    return right in scopes or any(covers(scope.partition(CONFLATE)[0], right) for scope in scopes)


def covers(scope: str, right: str) -> bool:
    """Return whether a scope without an interval covers a right. The time grows linearly with the right's length."""
    return _pattern(scope).fullmatch(right) is not None


@short_cache(4_096)
def _pattern(scope: str) -> re.Pattern[str]:
    """Compile a scope. The text between two ``*`` is matched atomically at its first place, so nothing backtracks."""
    *parts, last = scope.split("*")
    if not parts:
        return re.compile(_translated(last), re.DOTALL)
    first, *between = (_translated(part, before_any=True) for part in parts)
    return re.compile(first + "".join(f"(?>.*?{part})" for part in between) + f".*{_translated(last)}", re.DOTALL)


def _translated(part: str, *, before_any: bool = False) -> str:
    texts = _LEVEL.split(part)
    translated = [_ONE_LEVEL if number % 2 else re.escape(text) for number, text in enumerate(texts)]
    if len(texts) > 1 and not texts[-1]:
        if before_any:
            # One character of the level is enough: the ``*`` that follows takes the others.
            translated[-2] = "[^/]"
        elif texts[-2].endswith("...}"):
            translated[-2] = ".*"
    return "".join(translated)
