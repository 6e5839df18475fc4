"""Whether the facts about an instance contradict each other, whatever its type."""

from __future__ import annotations

from events.compatibility.json_facts import Facts, Known
from events.compatibility.json_goal import Prover


def is_contradiction(prover: Prover, facts: Facts) -> bool:
    """Return whether no type that the facts allow is possible."""
    return all(_RULES[name](prover, facts) for name in facts.types)


def _never_number(prover: Prover, facts: Facts) -> bool:
    (low, low_excluded), (high, high_excluded) = facts.lower(), facts.upper()
    return bool(low > high or (low == high and (low_excluded or high_excluded)))


def _never_text(prover: Prover, facts: Facts) -> bool:
    return bool(facts.most("minLength") > facts.least("maxLength"))


def _never_array(prover: Prover, facts: Facts) -> bool:
    least = facts.most("minItems")
    if least > facts.max_items():
        return True
    with prover.inside():
        numbers = range(int(min(least, 1 + facts.longest_prefix())))
        return any(prover.impossible(Known(facts.item(number))) for number in numbers)


def _never_object(prover: Prover, facts: Facts) -> bool:
    if facts.min_properties() > facts.max_properties():
        return True
    with prover.inside():
        return any(prover.impossible(Known(facts.member(name))) for name in sorted(facts.required()))


def _possible(prover: Prover, facts: Facts) -> bool:
    return False


_RULES = {
    "null": _possible, "boolean": _possible, "integer": _never_number, "fraction": _never_number,
    "string": _never_text, "array": _never_array, "object": _never_object,
}  # fmt: skip
