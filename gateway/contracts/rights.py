"""Whether scopes and an address template have an address in common: what a key may see of what there is.

All scopes of a key are looked at in one pass over the template. They are one automaton without branches but for
repetitions, its states the bits of an integer: thousands of channels times dozens of scopes take tenths of a second.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache

from gateway.identity.rights import allowed
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb

_WILDCARD = re.compile(r"(\*|(?<=[/:])\{[^/{}]*\}(?=[/*]|\Z))")


def may(who: Principal, verb: Verb, template: str) -> bool:
    """Say whether the principal has this right on some address of the template, or on all of them."""
    if allowed(who, Right(verb, template)):
        return True
    wanted = f"{verb}:{template}"
    return all(_patterns(held).meet(wanted) for held in (who.scopes, who.ceiling) if held is not None)


def meet(scope: str, wanted: str) -> bool:
    """Say whether some right is covered by the scope and is one of those that ``wanted`` stands for.

    ``*`` is any text. A ``{parameter}`` of a scope is a level that is not empty; in ``wanted`` a level may be empty.
    """
    return _patterns((scope,)).meet(wanted)


class _Patterns:
    """Several scopes as one automaton. Each character of a scope is a state, and its end is one."""

    def __init__(self, scopes: tuple[str, ...]) -> None:
        self._starts = self._ends = 0
        self._texts: dict[str, int] = defaultdict(int)
        """States that are left by one character, by that character."""
        self._in_level = 0
        """States that are left by any character of a level."""
        self._any = self._level = 0
        """States that any text, or any text within a level, does not leave, and that nothing need follow."""
        self._size = 0
        for scope in scopes:
            self._add(scope)
        self._stars = self._any | self._level
        self._but_slash = self._in_level | sum(bits for char, bits in self._texts.items() if char != "/")

    def meet(self, wanted: str) -> bool:
        """Say whether one of the scopes covers some text that ``wanted`` stands for."""
        states = self._skipped(self._starts)
        for part, is_wildcard in _parts(wanted):
            if is_wildcard:
                states = self._after_any(states, is_level=part != "*")
                continue
            for char in part:
                states = self._after(states, char)
                if not states:
                    return False
        return bool(states & self._ends)

    def _add(self, scope: str) -> None:
        self._starts |= 1 << self._size
        for part, is_wildcard in _parts(scope):
            if not is_wildcard:
                for char in part:
                    self._texts[char] |= self._state()
            elif part == "*":
                self._any |= self._state()
            else:
                self._in_level |= self._state()
                self._level |= self._state()
        self._ends |= self._state()

    def _state(self) -> int:
        self._size += 1
        return 1 << (self._size - 1)

    def _after(self, states: int, char: str) -> int:
        left, stays = self._texts.get(char, 0), self._any
        if char != "/":
            left, stays = left | self._in_level, self._stars
        return self._skipped((states & left) << 1 | states & stays)

    def _after_any(self, states: int, *, is_level: bool) -> int:
        left = self._but_slash if is_level else self._but_slash | self._texts.get("/", 0)
        while (more := self._skipped(states | (states & left) << 1)) != states:
            states = more
        return states

    def _skipped(self, states: int) -> int:
        """Add the states that are reached by taking nothing for a repetition."""
        while (more := states | (states & self._stars) << 1) != states:
            states = more
        return states


@lru_cache(maxsize=1024)
def _patterns(scopes: tuple[str, ...]) -> _Patterns:
    return _Patterns(scopes)


def _parts(text: str) -> list[tuple[str, bool]]:
    return [(part, number % 2 == 1) for number, part in enumerate(_WILDCARD.split(text)) if part]
