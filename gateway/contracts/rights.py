"""Whether scopes and an address template have an address in common, which decides what a key may see.

All scopes of a key are matched in one pass over the template, as one nondeterministic automaton whose states are the
bits of an integer: thousands of channels and dozens of scopes take tenths of a second.
"""

from __future__ import annotations

import re
from collections import defaultdict

from gateway.concurrency.short_cache import short_cache
from gateway.identity.rights import allowed
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb
from gateway.snapshot.scopes import CONFLATE

_WILDCARD = re.compile(r"(\*|(?<=[/:])\{[^/{}]*\}(?=[/*]|\Z))")


def may(who: Principal, verb: Verb, template: str) -> bool:
    """Return whether the principal has this right on at least one address of the template."""
    if allowed(who, Right(verb, template)):
        return True
    right = f"{verb}:{template}"
    return all(_patterns(scopes).meet(right) for scopes in (who.scopes, who.ceiling) if scopes is not None)


def may_anything(who: Principal) -> bool:
    """Return whether the principal has any right at all."""
    plain = [scope.partition(CONFLATE)[0] for scope in who.scopes]
    return bool(plain) if who.ceiling is None else any(_patterns(who.ceiling).meet(scope) for scope in plain)


def meet(scope: str, template: str) -> bool:
    """Return whether the scope covers at least one right that the template matches.

    ``*`` is any text, as a ``{rest...}`` at the end is. A ``{parameter}`` is one level, which must not be empty in a
    scope but may be in a template.
    """
    return _patterns((scope,)).meet(template)


class _Patterns:
    """Several scopes as one automaton, with a state for each character of a scope and one for its end."""

    def __init__(self, scopes: tuple[str, ...]) -> None:
        self._starts = self._ends = 0
        self._texts: dict[str, int] = defaultdict(int)
        """States that one character leaves, by that character."""
        self._in_level = 0
        """States that any character but a slash leaves."""
        self._any = self._level = 0
        """States that repeat any text, or any text within a level, and may be skipped."""
        self._size = 0
        for scope in scopes:
            self._add(scope)
        self._stars = self._any | self._level
        self._but_slash = self._in_level | sum(bits for char, bits in self._texts.items() if char != "/")

    def meet(self, template: str) -> bool:
        """Return whether one of the scopes covers at least one text that the template matches."""
        states = self._skipped(self._starts)
        for part, is_wildcard in _parts(template):
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
        for part, is_wildcard in _parts(scope.partition(CONFLATE)[0]):
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
        """Add the states that are reached by skipping repetitions."""
        while (more := states | (states & self._stars) << 1) != states:
            states = more
        return states


@short_cache(1_024)
def _patterns(scopes: tuple[str, ...]) -> _Patterns:
    return _Patterns(scopes)


def _parts(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a scope or right, and whether each is a wildcard; a rest at the end is any text."""
    parts = [(part, number % 2 == 1) for number, part in enumerate(_WILDCARD.split(text)) if part]
    if parts and parts[-1][1] and parts[-1][0].endswith("...}"):
        parts[-1] = ("*", True)
    return parts
