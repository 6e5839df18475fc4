"""The rules of keywords for objects: whether what is known of an instance implies one keyword of another schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from events.compatibility.json_documents import Document, Schema
from events.compatibility.json_facts import Facts, Known, accepts
from events.compatibility.json_goal import Goal, Proof


def _required(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    before = goal.facts.required()
    missing = [name for name in goal.keywords["required"] if name not in before]
    lacking = next((name for name in missing if not (goal.fills and _is_filled(goal, name))), None)
    if lacking is None:
        return None
    return goal.failure("required", f"{lacking!r} was not required before", "REQUIRED_ATTRIBUTE_ADDED")


def _is_filled(goal: Goal, name: str) -> bool:
    """Return whether a missing member is filled in with a valid default."""
    raw = goal.keywords.get("properties", {}).get(name)
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
    for name, raw in goal.keywords["properties"].items():
        failure = _member(goal, name, raw, f"properties/{_escaped(name)}")
        if failure is not None:
            is_new = not any(name in members for members in goal.facts.values_of("properties"))
            return replace(failure, kind="PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL") if is_new else failure
    return None


def _member(goal: Goal, name: str, raw: Any, at: str) -> Proof:
    parts = goal.facts.member(name)
    failure = goal.within(parts, raw, at)
    return None if failure is None or goal.never(parts) else failure


def _pattern_properties(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    for pattern, raw in goal.keywords["patternProperties"].items():
        at = f"patternProperties/{_escaped(pattern)}"
        for name in sorted(goal.facts.names()):
            if goal.facts.is_match(pattern, name) and (failure := _member(goal, name, raw, at)) is not None:
                return failure
        same_pattern = [parts for parts in _unnamed(goal.facts) if pattern in parts]
        if any(goal.within((parts[pattern],), raw, at) is None for parts in same_pattern):
            continue
        failure = _others(goal, raw, at, frozenset())
        if failure is not None:
            return failure
    return None


def _additional_properties(goal: Goal) -> Proof:
    raw = goal.keywords["additionalProperties"]
    if "object" not in goal.facts.types or raw is True:
        return None
    own, patterns = goal.keywords.get("properties", {}), goal.keywords.get("patternProperties", {})
    for name in sorted(goal.facts.names()):
        if name in own or any(goal.facts.is_match(pattern, name) for pattern in patterns):
            continue
        if (failure := _member(goal, name, raw, "additionalProperties")) is not None:
            message = f"{name!r} was accepted before and is not allowed now" if raw is False else failure.message
            kind = "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL" if raw is False else failure.kind
            return goal.failure("additionalProperties", message, kind)
    return _others(goal, raw, "additionalProperties", frozenset(patterns))


def _others(goal: Goal, raw: Any, at: str, without: frozenset[str]) -> Proof:
    """Prove a schema for the members that no part names, except those that match the patterns ``without``.

    It is enough that one part implies it for all of them.
    """
    if goal.within((), raw, at) is None:
        return None
    failure: Proof = goal.failure(at, "members of any name were accepted before", "ADDITIONAL_PROPERTIES_NARROWED")
    for parts in _unnamed(goal.facts):
        schemas = [schema for pattern, schema in parts.items() if pattern not in without and not goal.never((schema,))]
        proofs = (goal.within((schema,), raw, at) for schema in schemas)
        first = next((proof for proof in proofs if proof is not None), None)
        if first is None:
            return None
        failure = first
    return failure


def _unnamed(facts: Facts) -> Iterator[dict[str, Schema]]:
    """Yield for each part the schemas of members by pattern, and that of all others under ``_REST``."""
    for keywords, schema in facts.parts:
        if "additionalProperties" in keywords or "patternProperties" in keywords:
            by_pattern = {pattern: schema.inner(raw) for pattern, raw in keywords.get("patternProperties", {}).items()}
            by_pattern[_REST] = schema.inner(keywords.get("additionalProperties", True))
            yield by_pattern


def _property_names(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    names_schema = goal.new.inner(goal.keywords["propertyNames"])
    with goal.prover.inside():
        for known in goal.facts.schemas("propertyNames"):
            if goal.prover.contains(Known((known, _ANY_STRING)), names_schema, f"{goal.at}/propertyNames") is None:
                return None
    closed = [parts for parts in _unnamed(goal.facts) if all(goal.never((schema,)) for schema in parts.values())]
    names = [name for name in goal.facts.names() if not goal.never(goal.facts.member(name))]
    if closed and all(accepts(names_schema, name) is True for name in names):
        return None
    return goal.failure("propertyNames", "names that were accepted may be refused", "PROPERTY_NAMES_NARROWED")


def _min_properties(goal: Goal) -> Proof:
    least = goal.keywords["minProperties"]
    if "object" not in goal.facts.types or goal.facts.min_properties() >= least:
        return None
    return goal.failure("minProperties", f"raised to {least}", "MIN_PROPERTIES_INCREASED")


def _max_properties(goal: Goal) -> Proof:
    most = goal.keywords["maxProperties"]
    if "object" not in goal.facts.types or goal.facts.max_properties() <= most:
        return None
    return goal.failure("maxProperties", f"lowered to {most}", "MAX_PROPERTIES_DECREASED")


def _dependent_required(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    required, needs = goal.facts.required(), goal.facts.values_of("dependentRequired")
    for name, dependents in goal.keywords["dependentRequired"].items():
        goal.facts.budget.spend(len(needs))
        before = {name}.union(*(needed.get(name, ()) for needed in needs))
        if all(other in before or other in required for other in dependents) or goal.never(goal.facts.member(name)):
            continue
        return goal.failure("dependentRequired", f"{name!r} needs more than before", "DEPENDENCY_ARRAY_EXTENDED")
    return None


def _dependent_schemas(goal: Goal) -> Proof:
    if "object" not in goal.facts.types:
        return None
    for name, raw in goal.keywords["dependentSchemas"].items():
        has_it = Schema({"type": "object", "required": [name]}, goal.new.document)
        goal.new.document.held.append(has_it)
        implied = [
            schema.inner(keywords["dependentSchemas"][name])
            for keywords, schema in goal.facts.parts
            if name in keywords.get("dependentSchemas", {})
        ]
        if goal.never(goal.facts.member(name)):
            continue
        known = goal.known.also(has_it, *implied)
        failure = goal.prover.contains(known, goal.new.inner(raw), f"{goal.at}/dependentSchemas/{_escaped(name)}")
        if failure is not None:
            return failure
    return None


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


_REST = "\0rest"
"""Key of the members that match no pattern; no pattern has this text."""
_ANY_STRING = Schema({"type": "string"}, Document(True))
RULES: dict[str, Callable[[Goal], Proof]] = {
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
}
