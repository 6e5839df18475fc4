"""The rules of keywords: whether what is known of an instance implies one keyword of another schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from events.compatibility import json_objects
from events.compatibility.json_documents import Schema
from events.compatibility.json_facts import NUMBERS, Facts, Known, accepts, atoms, exact
from events.compatibility.json_goal import Goal, Proof


def _type(goal: Goal) -> Proof:
    lost = goal.facts.types - atoms(goal.keywords["type"])
    if not lost:
        return None
    return goal.failure("type", f"{', '.join(sorted(lost))} is no longer accepted", "TYPE_NARROWED")


def _values(word: str) -> Callable[[Goal], Proof]:
    def rule(goal: Goal) -> Proof:
        allowed = goal.keywords[word] if word == "enum" else [goal.keywords[word]]
        values = goal.facts.values
        if values is not None:
            goal.facts.budget.spend(len(allowed))
            alike = {_alike(other) for other in allowed}
            if all(_alike(value) in alike for value in values):
                return None
        return goal.failure(word, "values that were accepted are not in the list", "ENUM_ARRAY_NARROWED")

    return rule


def _alike(value: Any) -> Any:
    """Return a hashable that is equal for values that are equal in JSON: 1 equals 1.0, but not true."""
    if isinstance(value, dict):
        return frozenset((name, _alike(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(map(_alike, value))
    return isinstance(value, bool), value


def _low(word: str, bound_of: Callable[[Facts], Any], kinds: frozenset[str]) -> Callable[[Goal], Proof]:
    """Return the rule that the known lower bound is at least as high."""

    def rule(goal: Goal) -> Proof:
        if not kinds & goal.facts.types or bound_of(goal.facts) >= goal.keywords[word]:
            return None
        return goal.failure(word, f"raised to {goal.keywords[word]}", f"{_CAPITALS[word]}_INCREASED")

    return rule


def _high(word: str, bound_of: Callable[[Facts], Any], kinds: frozenset[str]) -> Callable[[Goal], Proof]:
    """Return the rule that the known upper bound is at least as low."""

    def rule(goal: Goal) -> Proof:
        if not kinds & goal.facts.types or bound_of(goal.facts) <= goal.keywords[word]:
            return None
        return goal.failure(word, f"lowered to {goal.keywords[word]}", f"{_CAPITALS[word]}_DECREASED")

    return rule


def _exclusive_minimum(goal: Goal) -> Proof:
    bound, is_excluded = goal.facts.lower()
    required = goal.keywords["exclusiveMinimum"]
    if not goal.facts.types & NUMBERS or bound > required or (bound == required and is_excluded):
        return None
    return goal.failure("exclusiveMinimum", f"raised to {required}", "EXCLUSIVE_MINIMUM_INCREASED")


def _exclusive_maximum(goal: Goal) -> Proof:
    bound, is_excluded = goal.facts.upper()
    required = goal.keywords["exclusiveMaximum"]
    if not goal.facts.types & NUMBERS or bound < required or (bound == required and is_excluded):
        return None
    return goal.failure("exclusiveMaximum", f"lowered to {required}", "EXCLUSIVE_MAXIMUM_DECREASED")


def _multiple_of(goal: Goal) -> Proof:
    if not goal.facts.types & NUMBERS:
        return None
    known = [exact(number) for number in goal.facts.values_of("multipleOf")]
    if "fraction" not in goal.facts.types:
        known.append(exact(1))
    divisor = exact(goal.keywords["multipleOf"])
    if any((number / divisor).denominator == 1 for number in known) or _accepted(goal, "multipleOf"):
        return None
    return goal.failure("multipleOf", f"is now {goal.keywords['multipleOf']}", "MULTIPLE_OF_CHANGED")


def _text(word: str) -> Callable[[Goal], Proof]:
    """Return the rule of a pattern or format: literally equal, or accepting each of the few possible values."""

    def rule(goal: Goal) -> Proof:
        if (
            "string" not in goal.facts.types
            or goal.keywords[word] in goal.facts.values_of(word)
            or _accepted(goal, word)
        ):
            return None
        return goal.failure(word, f"is now {goal.keywords[word]}", f"{_CAPITALS[word]}_CHANGED")

    return rule


def _accepted(goal: Goal, word: str) -> bool:
    """Return whether a keyword accepts every possible value, if those are listed."""
    values = goal.facts.values
    if values is None:
        return False
    alone = Schema({word: goal.keywords[word]}, goal.new.document)
    goal.new.document.held.append(alone)
    return all(accepts(alone, value) is True for value in values)


def _prefix_items(goal: Goal) -> Proof:
    for number, raw in enumerate(goal.keywords["prefixItems"]):
        if "array" not in goal.facts.types or goal.facts.least("maxItems") <= number:
            return None
        failure = goal.within(goal.facts.item(number), raw, f"prefixItems/{number}")
        if failure is not None and not goal.never(goal.facts.item(number)):
            return failure
    return None


def _items(goal: Goal) -> Proof:
    if "array" not in goal.facts.types:
        return None
    first = len(goal.keywords.get("prefixItems", ()))
    last = max(first, goal.facts.longest_prefix())
    for number in range(first, last + 1):
        if goal.facts.least("maxItems") <= number:
            return None
        parts = goal.facts.item(number)
        failure = goal.within(parts, goal.keywords["items"], "items")
        if failure is not None and not goal.never(parts):
            return failure
        if failure is not None:
            # No item is possible at this index, so none is possible after it.
            return None
    return None


def _unique_items(goal: Goal) -> Proof:
    is_needless = "array" not in goal.facts.types or not goal.keywords["uniqueItems"]
    if is_needless or any(goal.facts.values_of("uniqueItems")) or goal.facts.least("maxItems") <= 1:
        return None
    return goal.failure("uniqueItems", "items must be unique now", "UNIQUE_ITEMS_ADDED")


def _contains(goal: Goal) -> Proof:
    least = goal.keywords.get("minContains", 1)
    if "array" not in goal.facts.types or least == 0:
        return None
    item = goal.keywords["contains"]
    if goal.facts.most("minItems") >= least:
        numbers = range(goal.facts.longest_prefix() + 1)
        if all(goal.within(goal.facts.item(number), item, "contains") is None for number in numbers):
            return None
    for keywords, schema in goal.facts.parts:
        if keywords.get("minContains", 1) >= least and "contains" in keywords:
            with goal.prover.inside():
                known = Known((schema.inner(keywords["contains"]),))
                if goal.prover.contains(known, goal.new.inner(item), f"{goal.at}/contains") is None:
                    return None
    return goal.failure("contains", "arrays that were accepted contain no such item", "CONTAINS_CHANGED")


_STRING, _ARRAY = frozenset({"string"}), frozenset({"array"})
_CAPITALS = {
    "minimum": "MINIMUM", "maximum": "MAXIMUM", "minLength": "MIN_LENGTH", "maxLength": "MAX_LENGTH",
    "minItems": "MIN_ITEMS", "maxItems": "MAX_ITEMS", "pattern": "PATTERN", "format": "FORMAT",
}  # fmt: skip
RULES: dict[str, Callable[[Goal], Proof]] = {
    "type": _type,
    "enum": _values("enum"),
    "const": _values("const"),
    "minimum": _low("minimum", lambda facts: facts.lower()[0], NUMBERS),
    "maximum": _high("maximum", lambda facts: facts.upper()[0], NUMBERS),
    "exclusiveMinimum": _exclusive_minimum,
    "exclusiveMaximum": _exclusive_maximum,
    "multipleOf": _multiple_of,
    "minLength": _low("minLength", lambda facts: facts.most("minLength"), _STRING),
    "maxLength": _high("maxLength", lambda facts: facts.least("maxLength"), _STRING),
    "pattern": _text("pattern"),
    "format": _text("format"),
    "minItems": _low("minItems", lambda facts: facts.most("minItems"), _ARRAY),
    "maxItems": _high("maxItems", lambda facts: facts.max_items(), _ARRAY),
    "uniqueItems": _unique_items,
    "prefixItems": _prefix_items,
    "items": _items,
    "contains": _contains,
    **json_objects.RULES,
}
"""In the order in which they are proved: the first failure is reported."""
