"""Whether a scope and an address template have an address in common: what a key may see of what there is."""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.call import Principal, Right, Verb
from gateway.rights import allowed

_WILDCARD = re.compile(r"(\*|(?<=[/:])\{[^/{}]*\}(?=[/*]|\Z))")
_ANY, _LEVEL, _IN_LEVEL = "any", "level", "in level"
"""Any text; the rest of a level, which may be empty; one character of a level. Everything else is itself."""


def may(who: Principal, verb: Verb, template: str) -> bool:
    """Say whether the principal has this right on some address of the template, or on all of them."""
    if allowed(who, Right(verb, template)):
        return True
    wanted = f"{verb}:{template}"
    return all(any(meet(scope, wanted) for scope in held) for held in (who.scopes, who.ceiling) if held is not None)


@lru_cache(maxsize=65_536)
def meet(scope: str, wanted: str) -> bool:
    """Say whether some right is covered by the scope and is one of those that ``wanted`` stands for.

    ``*`` of a scope is any text and its ``{parameter}`` a level that is not empty; in ``wanted`` a level may be empty.
    """
    if not _begin_alike(scope, wanted):
        return False
    one, other = _steps(scope, (_IN_LEVEL, _LEVEL)), _steps(wanted, (_LEVEL,))
    seen: set[tuple[int, int]] = set()
    left = [(0, 0)]
    while left:
        state = left.pop()
        if state == (len(one), len(other)):
            return True
        if state not in seen:
            seen.add(state)
            left += _next(one, other, *state)
    return False


def _begin_alike(scope: str, wanted: str) -> bool:
    one, other = _WILDCARD.split(scope, maxsplit=1)[0], _WILDCARD.split(wanted, maxsplit=1)[0]
    return one.startswith(other) or other.startswith(one)


def _steps(text: str, parameter: tuple[str, ...]) -> list[str]:
    steps: list[str] = []
    for number, part in enumerate(_WILDCARD.split(text)):
        if number % 2 == 0:
            steps += part
        elif part == "*":
            steps.append(_ANY)
        else:
            steps += parameter
    return steps


def _next(one: list[str], other: list[str], at: int, by: int) -> list[tuple[int, int]]:
    """Give where two patterns may stand after one more character that both take, or after a repetition ends."""
    here = one[at] if at < len(one) else None
    there = other[by] if by < len(other) else None
    found = []
    if here in (_ANY, _LEVEL):
        found.append((at + 1, by))
    if there in (_ANY, _LEVEL):
        found.append((at, by + 1))
    if here is not None and there is not None and _have_in_common(here, there):
        found.append((at + (here not in (_ANY, _LEVEL)), by + (there not in (_ANY, _LEVEL))))
    return found


def _have_in_common(here: str, there: str) -> bool:
    if len(here) == 1 and len(there) == 1:
        return here == there
    if "/" in (here, there):
        return _ANY in (here, there)
    return True
