"""The rules of single keywords: whether what is known of an instance implies one keyword of another schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from events.compatibility.budget import Fault
from events.compatibility.json_documents import Document, Schema
from events.compatibility.json_facts import NUMBERS, Facts, Known, accepts, atoms, exact

if TYPE_CHECKING:
    from events.compatibility.json_schema import Prover

Proof = Fault | None


@dataclass(slots=True)
class Goal:
    """A schema to be proved of what is known."""

    prover: Prover
    known: Known
    facts: Facts
    new: Schema
    said: dict[str, Any]
    at: str
    fills: bool
    """A missing member may be filled in with its default."""

    def fault(self, word: str, said: str, kind: str) -> Fault:
        """Name a keyword that cannot be proved."""
        return Fault(f"{self.at}/{word}", said, kind)

    def within(self, parts: tuple[Schema, ...], raw: Any, at: str) -> Proof:
        """Prove of a member or an item that it satisfies a schema."""
        with self.prover.inside():
            return self.prover.contains(Known(parts), self.new.inner(raw), f"{self.at}/{at}", fills=self.fills)

    def never(self, parts: tuple[Schema, ...]) -> bool:
        """Prove that there can be no such member or item."""
        with self.prover.inside():
            return self.prover.impossible(Known(parts))


def _type(goal: Goal) -> Proof:
    lost = goal.facts.types - atoms(goal.said["type"])
    if not lost:
        return None
    return goal.fault("type", f"{', '.join(sorted(lost))} is no longer taken", "TYPE_NARROWED")


def _values(word: str) -> Callable[[Goal], Proof]:
    def rule(goal: Goal) -> Proof:
        allowed = goal.said[word] if word == "enum" else [goal.said[word]]
        values = goal.facts.values
        if values is not None:
            goal.facts.budget.spend(len(allowed))
            alike = {_alike(other) for other in allowed}
            if all(_alike(value) in alike for value in values):
                return None
        return goal.fault(word, "values that were taken are not in the list", "ENUM_ARRAY_NARROWED")

    return rule


def _alike(value: Any) -> Any:
    """Give what is equal for values that are equal in JSON: 1 is 1.0, but is not true."""
    if isinstance(value, dict):
        return frozenset((name, _alike(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(map(_alike, value))
    return isinstance(value, bool), value


def _low(word: str, wanted: Callable[[Facts], Any], kinds: frozenset[str]) -> Callable[[Goal], Proof]:
    """The known lower bound must be at least as high."""

    def rule(goal: Goal) -> Proof:
        if not kinds & goal.facts.types or wanted(goal.facts) >= goal.said[word]:
            return None
        return goal.fault(word, f"raised to {goal.said[word]}", f"{_CAPITALS[word]}_INCREASED")

    return rule


def _high(word: str, wanted: Callable[[Facts], Any], kinds: frozenset[str]) -> Callable[[Goal], Proof]:
    """The known upper bound must be at least as low."""

    def rule(goal: Goal) -> Proof:
        if not kinds & goal.facts.types or wanted(goal.facts) <= goal.said[word]:
            return None
        return goal.fault(word, f"lowered to {goal.said[word]}", f"{_CAPITALS[word]}_DECREASED")

    return rule


def _exclusive_minimum(goal: Goal) -> Proof:
    bound, is_excluded = goal.facts.lower()
    wanted = goal.said["exclusiveMinimum"]
    if not goal.facts.types & NUMBERS or bound > wanted or (bound == wanted and is_excluded):
        return None
    return goal.fault("exclusiveMinimum", f"raised to {wanted}", "EXCLUSIVE_MINIMUM_INCREASED")


def _exclusive_maximum(goal: Goal) -> Proof:
    bound, is_excluded = goal.facts.upper()
    wanted = goal.said["exclusiveMaximum"]
    if not goal.facts.types & NUMBERS or bound < wanted or (bound == wanted and is_excluded):
        return None
    return goal.fault("exclusiveMaximum", f"lowered to {wanted}", "EXCLUSIVE_MAXIMUM_DECREASED")


def _multiple_of(goal: Goal) -> Proof:
    if not goal.facts.types & NUMBERS:
        return None
    known = [exact(number) for number in goal.facts.of("multipleOf")]
    if "fraction" not in goal.facts.types:
        known.append(exact(1))
    wanted = exact(goal.said["multipleOf"])
    if any((number / wanted).denominator == 1 for number in known) or _accepted(goal, "multipleOf"):
        return None
    return goal.fault("multipleOf", f"is now {goal.said['multipleOf']}", "MULTIPLE_OF_CHANGED")


def _text(word: str) -> Callable[[Goal], Proof]:
    """Patterns and formats are compared as they are written, and tried on single values."""

    def rule(goal: Goal) -> Proof:
        if "string" not in goal.facts.types or goal.said[word] in goal.facts.of(word) or _accepted(goal, word):
            return None
        return goal.fault(word, f"is now {goal.said[word]}", f"{_CAPITALS[word]}_CHANGED")

    return rule


def _accepted(goal: Goal, word: str) -> bool:
    """Try a keyword on all values that there are, where they are few."""
    values = goal.facts.values
    if values is None:
        return False
    alone = Schema({word: goal.said[word]}, goal.new.document)
    goal.new.document.held.append(alone)
    return all(accepts(alone, value) is True for value in values)


def _prefix_items(goal: Goal) -> Proof:
    for number, raw in enumerate(goal.said["prefixItems"]):
        if "array" not in goal.facts.types or goal.facts.least("maxItems") <= number:
            return None
        fault = goal.within(goal.facts.item(number), raw, f"prefixItems/{number}")
        if fault is not None and not goal.never(goal.facts.item(number)):
            return fault
    return None


def _items(goal: Goal) -> Proof:
    if "array" not in goal.facts.types:
        return None
    first = len(goal.said.get("prefixItems", ()))
    last = max([first, *(len(prefix) for prefix in goal.facts.of("prefixItems"))])
    for number in range(first, last + 1):
        if goal.facts.least("maxItems") <= number:
            return None
        parts = goal.facts.item(number)
        fault = goal.within(parts, goal.said["items"], "items")
        if fault is not None and not goal.never(parts):
            return fault
        if fault is not None:
            # No item can stand here, so none can stand behind it.
            return None
    return None


def _unique_items(goal: Goal) -> Proof:
    is_needless = "array" not in goal.facts.types or not goal.said["uniqueItems"]
    if is_needless or any(goal.facts.of("uniqueItems")) or goal.facts.least("maxItems") <= 1:
        return None
    return goal.fault("uniqueItems", "items must differ now", "UNIQUE_ITEMS_ADDED")


def _contains(goal: Goal) -> Proof:
    least = goal.said.get("minContains", 1)
    if "array" not in goal.facts.types or least == 0:
        return None
    wanted = goal.said["contains"]
    if goal.facts.most("minItems") >= least:
        numbers = range(max([0, *(len(prefix) for prefix in goal.facts.of("prefixItems"))]) + 1)
        if all(goal.within(goal.facts.item(number), wanted, "contains") is None for number in numbers):
            return None
    for said, schema in goal.facts.parts:
        if said.get("minContains", 1) >= least and "contains" in said:
            with goal.prover.inside():
                known = Known((schema.inner(said["contains"]),))
                if goal.prover.contains(known, goal.new.inner(wanted), f"{goal.at}/contains") is None:
                    return None
    return goal.fault("contains", "arrays that were taken hold no such item", "CONTAINS_CHANGED")


def _required(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    before = goal.facts.required()
    missing = [name for name in goal.said["required"] if name not in before]
    lacking = next((name for name in missing if not (goal.fills and _is_filled(goal, name))), None)
    if lacking is None:
        return None
    return goal.fault("required", f"{lacking!r} was not required before", "REQUIRED_ATTRIBUTE_ADDED")


def _is_filled(goal: Goal, name: str) -> bool:
    """Say whether a member that is missing is filled in with a default that is valid."""
    raw = goal.said.get("properties", {}).get(name)
    if not isinstance(raw, dict) or "default" not in raw:
        return False
    schema, default = goal.new.inner(raw), Schema({"const": raw["default"]}, goal.new.document)
    is_valid = accepts(schema, raw["default"])
    if is_valid is not None:
        return is_valid
    goal.new.document.held.append(default)
    with goal.prover.inside():
        return goal.prover.contains(Known((default,)), schema, goal.at) is None


def _properties(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    for name, raw in goal.said["properties"].items():
        fault = _member(goal, name, raw, f"properties/{_escaped(name)}")
        if fault is not None:
            is_new = not any(name in members for members in goal.facts.of("properties"))
            return Fault(fault.pointer, fault.said, "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL") if is_new else fault
    return None


def _member(goal: Goal, name: str, raw: Any, at: str) -> Proof:
    parts = goal.facts.member(name)
    fault = goal.within(parts, raw, at)
    return None if fault is None or goal.never(parts) else fault


def _pattern_properties(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    for pattern, raw in goal.said["patternProperties"].items():
        at = f"patternProperties/{_escaped(pattern)}"
        for name in sorted(goal.facts.names()):
            if goal.facts.is_match(pattern, name) and (fault := _member(goal, name, raw, at)) is not None:
                return fault
        same_pattern = [parts for parts in _unnamed(goal.facts) if pattern in parts]
        if any(goal.within((parts[pattern],), raw, at) is None for parts in same_pattern):
            continue
        fault = _others(goal, raw, at, frozenset())
        if fault is not None:
            return fault
    return None


def _additional_properties(goal: Goal) -> Proof:
    raw = goal.said["additionalProperties"]
    if "object" not in goal.facts.types or raw is True:
        return None
    own, patterns = goal.said.get("properties", {}), goal.said.get("patternProperties", {})
    for name in sorted(goal.facts.names()):
        if name in own or any(goal.facts.is_match(pattern, name) for pattern in patterns):
            continue
        if (fault := _member(goal, name, raw, "additionalProperties")) is not None:
            said = f"{name!r} was taken before and is not allowed now" if raw is False else fault.said
            kind = "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL" if raw is False else fault.kind
            return goal.fault("additionalProperties", said, kind)
    return _others(goal, raw, "additionalProperties", frozenset(patterns))


def _others(goal: Goal, raw: Any, at: str, without: frozenset[str]) -> Proof:
    """Prove a schema of members that no part names; those of some patterns are looked after elsewhere.

    One part that says enough of all of them is enough.
    """
    if goal.within((), raw, at) is None:
        return None
    fault: Proof = goal.fault(at, "members of any name were taken before", "ADDITIONAL_PROPERTIES_NARROWED")
    for parts in _unnamed(goal.facts):
        schemas = [schema for pattern, schema in parts.items() if pattern not in without and not goal.never((schema,))]
        proofs = (goal.within((schema,), raw, at) for schema in schemas)
        found = next((proof for proof in proofs if proof is not None), None)
        if found is None:
            return None
        fault = found
    return fault


def _unnamed(facts: Facts) -> Iterator[dict[str, Schema]]:
    """Give, part by part, what is said of members by pattern, and of all others (under ``""``)."""
    for said, schema in facts.parts:
        if "additionalProperties" in said or "patternProperties" in said:
            found = {pattern: schema.inner(raw) for pattern, raw in said.get("patternProperties", {}).items()}
            found[_REST] = schema.inner(said.get("additionalProperties", True))
            yield found


def _property_names(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    wanted = goal.new.inner(goal.said["propertyNames"])
    with goal.prover.inside():
        for known in goal.facts.schemas("propertyNames"):
            if goal.prover.contains(Known((known, _A_TEXT)), wanted, f"{goal.at}/propertyNames") is None:
                return None
    closed = [parts for parts in _unnamed(goal.facts) if all(goal.never((schema,)) for schema in parts.values())]
    names = [name for name in goal.facts.names() if not goal.never(goal.facts.member(name))]
    if closed and all(accepts(wanted, name) is True for name in names):
        return None
    return goal.fault("propertyNames", "names that were taken may be refused", "PROPERTY_NAMES_NARROWED")


def _dependent_required(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    required, needs = goal.facts.required(), goal.facts.of("dependentRequired")
    for name, wanted in goal.said["dependentRequired"].items():
        goal.facts.budget.spend(len(needs))
        before = {name}.union(*(needed.get(name, ()) for needed in needs))
        if all(other in before or other in required for other in wanted) or goal.never(goal.facts.member(name)):
            continue
        return goal.fault("dependentRequired", f"{name!r} needs more than before", "DEPENDENCY_ARRAY_EXTENDED")
    return None


def _dependent_schemas(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    for name, raw in goal.said["dependentSchemas"].items():
        has_it = Schema({"type": "object", "required": [name]}, goal.new.document)
        goal.new.document.held.append(has_it)
        implied = [
            schema.inner(said["dependentSchemas"][name])
            for said, schema in goal.facts.parts
            if name in said.get("dependentSchemas", {})
        ]
        if goal.never(goal.facts.member(name)):
            continue
        known = goal.known.also(has_it, *implied)
        fault = goal.prover.contains(known, goal.new.inner(raw), f"{goal.at}/dependentSchemas/{_escaped(name)}")
        if fault is not None:
            return fault
    return None


def _min_properties(facts: Facts) -> Any:
    return max(facts.most("minProperties"), len(facts.required()))


def _max_properties(facts: Facts) -> Any:
    closed = [
        len(said.get("properties", {}))
        for said, _ in facts.parts
        if said.get("additionalProperties") is False and not said.get("patternProperties")
    ]
    return min([facts.least("maxProperties"), *closed])


def _max_items(facts: Facts) -> Any:
    closed = [len(said.get("prefixItems", ())) for said, _ in facts.parts if said.get("items") is False]
    return min([facts.least("maxItems"), *closed])


def is_contradiction(prover: Prover, facts: Facts) -> bool:
    """Say whether what is known contradicts itself, whatever the type."""
    return all(_CONTRADICTED[name](prover, facts) for name in facts.types)


def _never_number(prover: Prover, facts: Facts) -> bool:
    (low, low_excluded), (high, high_excluded) = facts.lower(), facts.upper()
    return bool(low > high or (low == high and (low_excluded or high_excluded)))


def _never_text(prover: Prover, facts: Facts) -> bool:
    return bool(facts.most("minLength") > facts.least("maxLength"))


def _never_array(prover: Prover, facts: Facts) -> bool:
    least = facts.most("minItems")
    if least > _max_items(facts):
        return True
    with prover.inside():
        numbers = range(int(min(least, 1 + max([0, *(len(prefix) for prefix in facts.of("prefixItems"))]))))
        return any(prover.impossible(Known(facts.item(number))) for number in numbers)


def _never_object(prover: Prover, facts: Facts) -> bool:
    if _min_properties(facts) > _max_properties(facts):
        return True
    with prover.inside():
        return any(prover.impossible(Known(facts.member(name))) for name in sorted(facts.required()))


def _possible(prover: Prover, facts: Facts) -> bool:
    return False


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


_REST = "\0rest"
"""Stands for the members that no pattern matches; no pattern is written so."""
_STRING, _ARRAY, _OBJECT = frozenset({"string"}), frozenset({"array"}), frozenset({"object"})
_CAPITALS = {
    "minimum": "MINIMUM", "maximum": "MAXIMUM", "minLength": "MIN_LENGTH", "maxLength": "MAX_LENGTH",
    "minItems": "MIN_ITEMS", "maxItems": "MAX_ITEMS", "minProperties": "MIN_PROPERTIES",
    "maxProperties": "MAX_PROPERTIES", "pattern": "PATTERN", "format": "FORMAT",
}  # fmt: skip
_CONTRADICTED = {
    "null": _possible, "boolean": _possible, "integer": _never_number, "fraction": _never_number,
    "string": _never_text, "array": _never_array, "object": _never_object,
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
    "maxItems": _high("maxItems", _max_items, _ARRAY),
    "uniqueItems": _unique_items,
    "prefixItems": _prefix_items,
    "items": _items,
    "contains": _contains,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "minProperties": _low("minProperties", _min_properties, _OBJECT),
    "maxProperties": _high("maxProperties", _max_properties, _OBJECT),
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
}
_A_TEXT = Schema({"type": "string"}, Document(True))
