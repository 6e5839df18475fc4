"""Estimates the cost of checking a value by a JSON Schema, from the schema alone. Pure: no I/O, no clock.

The validator decides in microseconds, but it inlines references, so a few lines of schema may need a million checks;
and it describes every failed branch with a copy of the value, which may take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

EVALUATIONS_MAX = 100_000
"""Most checks that a schema may need for one value."""
SMALL = 10
"""A schema that needs no more checks per value is used for values of any size."""
CHECKS_MAX = 2_000_000
"""Most checks of all inner values together; they take some 20 ms, in which no other thread runs."""
OF_COMPOSITE = 20
"""Cost of comparing with an array or object of an ``enum``, in checks."""
DESCRIPTION_MAX = 50_000
"""Most effort of describing a violation, in approximate microseconds: nothing else runs meanwhile."""
CHARACTERS_A_NODE = 100
"""Characters of a string that take as long to describe as one inner value."""
_LISTS = ("allOf", "anyOf", "oneOf")
_SAME_VALUE = ("not", "if", "then", "else")
_ANY_MEMBER = (
    "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "additionalItems", "unevaluatedItems",
    "contains",
)  # fmt: skip


class Unbounded(ValueError):
    """The schema needs more checks for one value than are allowed."""


@dataclass(frozen=True, slots=True)
class Effort:
    """The effort of checking one value."""

    evaluations: int = 1
    has_branches: bool = False
    recursions: int = 0
    """Number of places at which the schema refers back to itself."""

    def allows_checking(self, value: Any) -> bool:
        """Return whether a value may be checked: an expensive schema allows only small values."""
        if self.evaluations <= SMALL:
            return True
        most = CHECKS_MAX // self.evaluations
        return _measured(value, most)[0] <= most

    def allows_describing(self, value: Any) -> bool:
        """Return whether the validator may describe the violations of a value, branch by branch."""
        nodes, depth, characters = _measured(value)
        nodes += characters // CHARACTERS_A_NODE
        if not self.has_branches:
            return nodes <= DESCRIPTION_MAX
        repetitions: int = max(1, self.recursions) ** min(depth, 64)
        return nodes * self.evaluations * repetitions <= DESCRIPTION_MAX


def effort_of(schema: Any, others: Mapping[str, Any] | None = None) -> Effort:
    """Return the effort of a schema; ``others`` are those that it refers to by name. Raises Unbounded."""
    measuring = _Measuring(others or {})
    try:
        evaluations = measuring.of(schema, schema)
    except RecursionError:
        raise Unbounded("The schema refers to itself through too many other schemas.") from None
    if evaluations > EVALUATIONS_MAX:
        raise Unbounded(f"The schema needs more than {EVALUATIONS_MAX} checks for one value, as its branches multiply.")
    return Effort(evaluations, measuring.has_branches, measuring.recursions)


@dataclass(slots=True)
class _Measuring:
    others: Mapping[str, Any]
    has_branches: bool = False
    recursions: int = 0
    counted: dict[int, int] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    named: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Subschemas by name, for each document in which a reference was resolved by name."""

    def of(self, schema: Any, root: Any) -> int:
        """Return the most checks on the path to any one value; a reference back to itself counts once."""
        if not isinstance(schema, dict):
            return 1
        if id(schema) in self.open:
            self.recursions += 1
            return 1
        if id(schema) not in self.counted:
            self.open.add(id(schema))
            self.counted[id(schema)] = self._count(schema, root)
            self.open.remove(id(schema))
        return self.counted[id(schema)]

    def _count(self, schema: dict[str, Any], root: Any) -> int:
        self.has_branches |= not {"anyOf", "oneOf"}.isdisjoint(schema)
        here = 1 + OF_COMPOSITE * sum(isinstance(each, dict | list) for each in _items(schema.get("enum")))
        here += sum(self.of(each, where) for each, where in self._of_the_same_value(schema, root))
        anywhere = sum(self.of(each, root) for each in _of_any_member(schema))
        single = [*_members(schema.get("properties")), *_items(schema.get("prefixItems")), *_items(schema.get("items"))]
        return here + anywhere + max((self.of(each, root) for each in single), default=0)

    def _of_the_same_value(self, schema: dict[str, Any], root: Any) -> Iterator[tuple[Any, Any]]:
        for word in _LISTS:
            yield from ((each, root) for each in _items(schema.get(word)))
        for word in _SAME_VALUE:
            if word in schema:
                yield schema[word], root
        for word in ("dependentSchemas", "dependencies"):
            yield from ((each, root) for each in _members(schema.get(word)))
        for word in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(schema.get(word), str):
                yield self._target(schema[word], root)

    def _target(self, reference: str, root: Any) -> tuple[Any, Any]:
        name, _, fragment = reference.partition("#")
        own = root.get("$id", root.get("id")) if isinstance(root, dict) else None
        if name and name != own:
            last = name.rpartition("/")[2]
            root = next((each for uri, each in self.others.items() if uri.rpartition("/")[2] == last), root)
        if fragment and not fragment.startswith("/"):
            return self._named(root).get(fragment), root
        node = root
        for raw in unquote(fragment).split("/")[1:]:
            step = raw.replace("~1", "/").replace("~0", "~")
            is_index = isinstance(node, list) and step.isdecimal() and int(step) < len(node)
            node = node[int(step)] if is_index else node.get(step) if isinstance(node, dict) else None
        return node, root

    def _named(self, root: Any) -> dict[str, Any]:
        if id(root) not in self.named:
            by_name: dict[str, Any] = {}
            for each in _inside(root):
                for name in _names(each):
                    by_name.setdefault(name, each)
            self.named[id(root)] = by_name
        return self.named[id(root)]


def _of_any_member(schema: dict[str, Any]) -> Iterator[Any]:
    yield from _members(schema.get("patternProperties"))
    for word in _ANY_MEMBER:
        if isinstance(schema.get(word), dict):
            yield schema[word]


def _members(value: Any) -> Iterator[Any]:
    return iter(value.values()) if isinstance(value, dict) else iter(())


def _items(value: Any) -> Iterator[Any]:
    return iter(value) if isinstance(value, list) else iter(())


def _names(schema: dict[str, Any]) -> set[Any]:
    named = {schema.get(word) for word in ("$anchor", "$dynamicAnchor") if isinstance(schema.get(word), str)}
    return named | {each[1:] for each in (schema.get("$id"), schema.get("id")) if isinstance(each, str)}


def _inside(node: Any) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _measured(value: Any, most: int = DESCRIPTION_MAX) -> tuple[int, int, int]:
    """Return the number of inner values, levels and characters of a value; counting stops above ``most`` values."""
    nodes, depth, characters, level = 0, 0, 0, [value]
    while level and nodes <= most:
        nodes, depth = nodes + len(level), depth + 1
        characters += sum(len(each) for each in level if isinstance(each, str))
        below = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [one for each in below for one in each]
    return nodes, depth, characters
