"""What a conjunction of JSON Schemas says of an instance, in one place for each kind of value."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import jsonschema_rs

from events.compatibility.budget import Budget
from events.compatibility.json_documents import Document, Schema, has_references, same
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.json_schema import compiled

NUMBERS = frozenset({"integer", "fraction"})
TYPES = frozenset({"null", "boolean", "string", "array", "object"}) | NUMBERS
VALUES_MAX = 200
MATCH = 16
"""What it costs to search a name for a pattern, which may have to be compiled."""
_NOWHERE = Document(True)


@dataclass(frozen=True, slots=True)
class Known:
    """What an instance is known to satisfy, and what it is known not to."""

    parts: tuple[Schema, ...]
    excluded: tuple[Schema, ...] = ()
    used: frozenset[tuple[int, int]] = frozenset()
    """Choices that were split already."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from others."""
        return (
            frozenset(part.key for part in self.parts),
            frozenset(part.key for part in self.excluded),
            self.used,
        )

    def also(self, *parts: Schema, excluded: Iterable[Schema] = (), used: tuple[int, int] | None = None) -> Known:
        """Know more."""
        more = self.used if used is None else self.used | {used}
        return Known((*self.parts, *parts), (*self.excluded, *excluded), more)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several cases holds."""

    key: tuple[int, int]
    cases: tuple[tuple[tuple[Schema, ...], tuple[Schema, ...]], ...]
    """Of each case what holds, and what does not."""


@dataclass(slots=True)
class Facts:
    """All that is known, written out: references followed, ``allOf`` taken apart."""

    budget: Budget
    parts: list[tuple[dict[str, Any], Schema]] = field(default_factory=list)
    excluded: list[Schema] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    types: frozenset[str] = TYPES
    values: list[Any] | None = None
    """All that it may be, where that is a list."""

    def of(self, word: str) -> list[Any]:
        """Give what the parts say with a keyword."""
        return [said[word] for said, _ in self.parts if word in said]

    def schemas(self, word: str) -> list[Schema]:
        """Give the schemas that the parts say with a keyword."""
        return [schema.inner(said[word]) for said, schema in self.parts if word in said]

    def most(self, word: str, default: float = 0) -> Any:
        """Give the strictest of lower bounds."""
        return max(self.of(word), default=default)

    def least(self, word: str) -> Any:
        """Give the strictest of upper bounds."""
        return min(self.of(word), default=math.inf)

    def required(self) -> set[str]:
        """Give the members that it has for certain."""
        return {name for names in self.of("required") for name in names}

    def lower(self) -> tuple[Any, bool]:
        """Give the lower bound of numbers, and whether it is excluded itself."""
        bounds = [(bound, False) for bound in self.of("minimum")] + [
            (bound, True) for bound in self.of("exclusiveMinimum")
        ]
        bound, is_excluded = max(bounds, default=(-math.inf, False))
        if not self.types & {"fraction"} and bound != -math.inf:
            return (math.floor(bound) + 1 if is_excluded else math.ceil(bound)), False
        return bound, is_excluded

    def upper(self) -> tuple[Any, bool]:
        """Give the upper bound of numbers, and whether it is excluded itself."""
        bounds = [(bound, False) for bound in self.of("maximum")] + [
            (bound, True) for bound in self.of("exclusiveMaximum")
        ]
        bound, is_excluded = min(bounds, default=(math.inf, False), key=lambda found: (found[0], not found[1]))
        if not self.types & {"fraction"} and bound != math.inf:
            return (math.ceil(bound) - 1 if is_excluded else math.floor(bound)), False
        return bound, is_excluded

    def member(self, name: str) -> tuple[Schema, ...]:
        """Give every schema that the member of this name satisfies, if it is there. Raises TooComplex."""
        found: list[Schema] = []
        self.budget.spend(len(self.parts))
        for said, schema in self.parts:
            own = [said["properties"][name]] if name in said.get("properties", {}) else []
            own += [
                inner for pattern, inner in said.get("patternProperties", {}).items() if self.is_match(pattern, name)
            ]
            if not own and "additionalProperties" in said:
                own = [said["additionalProperties"]]
            found += [schema.inner(raw) for raw in own]
        return tuple(found)

    def is_match(self, pattern: str, name: str) -> bool:
        """Search a name for a pattern. Raises TooComplex."""
        self.budget.spend(MATCH)
        return is_match(pattern, name)

    def item(self, number: int) -> tuple[Schema, ...]:
        """Give every schema that the item at this place satisfies, if it is there. Raises TooComplex."""
        found = []
        self.budget.spend(len(self.parts))
        for said, schema in self.parts:
            prefix = said.get("prefixItems", ())
            if number < len(prefix):
                found.append(schema.inner(prefix[number]))
            elif "items" in said:
                found.append(schema.inner(said["items"]))
        return tuple(found)

    def names(self) -> set[str]:
        """Give the names of all members that a part speaks of."""
        return {name for members in self.of("properties") for name in members} | self.required()


def facts_of(known: Known, budget: Budget) -> Facts:
    """Write out all that is known. What is not understood is left out: then less is known, and nothing wrong."""
    facts = Facts(budget, excluded=list(known.excluded))
    waiting, seen = list(known.parts[::-1]), set()
    while waiting:
        schema = waiting.pop()
        if schema.key in seen:
            continue
        seen.add(schema.key)
        with budget.step():
            said = schema.keywords()
            _take(facts, schema, said, waiting, known.used)
    if facts.values is None and facts.types <= {"null", "boolean"}:
        facts.values = [None] * ("null" in facts.types) + [False, True] * ("boolean" in facts.types)
    budget.spend(sum(len(choice.cases) for choice in facts.choices))
    if facts.values is not None:
        budget.spend(len(facts.values) * len(facts.parts))
        _weed(facts)
    return facts


def _take(
    facts: Facts, schema: Schema, said: dict[str, Any], waiting: list[Schema], used: frozenset[tuple[int, int]]
) -> None:
    facts.parts.append((said, schema))
    if "$ref" in said:
        target = schema.document.resolve(said["$ref"])
        if target is not None:
            waiting.append(target)
    waiting.extend(schema.inner(raw) for raw in said.get("allOf", ()))
    if "type" in said:
        facts.types &= atoms(said["type"])
    if "not" in said:
        facts.excluded.append(schema.inner(said["not"]))
    for values in ([said["const"]] if "const" in said else None, said.get("enum")):
        if values is not None and len(values) <= VALUES_MAX:
            facts.values = (
                list(values)
                if facts.values is None
                else [value for value in facts.values if any(same(value, other) for other in values)]
            )
    facts.choices += [choice for choice in _choices(schema, said) if choice.key not in used]


def _choices(schema: Schema, said: Mapping[str, Any]) -> Iterable[Choice]:
    if "anyOf" in said:
        branches = [schema.inner(raw) for raw in said["anyOf"]]
        yield Choice((id(said["anyOf"]), id(schema.document)), tuple(((branch,), ()) for branch in branches))
    if "oneOf" in said:
        branches = [schema.inner(raw) for raw in said["oneOf"]]
        cases = tuple(((branch,), tuple(other for other in branches if other is not branch)) for branch in branches)
        yield Choice((id(said["oneOf"]), id(schema.document)), cases)
    if "if" in said:
        condition = schema.inner(said["if"])
        then, otherwise = (schema.inner(said.get(word, True)) for word in ("then", "else"))
        yield Choice((id(said["if"]), id(schema.document)), (((condition, then), ()), ((otherwise,), (condition,))))


def _weed(facts: Facts) -> None:
    """Leave out values that cannot be; say of the only one all that its parts are."""
    values = [value for value in facts.values or () if type_of(value) in facts.types]
    for said, schema in facts.parts:
        if not {"enum", "const", "type"}.issuperset(said):
            values = [value for value in values if accepts(schema, value) is not False]
    facts.values = values
    facts.types &= frozenset(map(type_of, values))
    if len(values) == 1:
        raw = _described(values[0])
        facts.parts.append((raw, Schema(raw, _NOWHERE)))


def _described(value: Any) -> dict[str, Any]:
    """Describe one value by keywords, so that it is compared part by part."""
    if isinstance(value, dict):
        return {
            "properties": {name: {"const": inner} for name, inner in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        described = [{"const": inner} for inner in value]
        return {"prefixItems": described, "items": False, "minItems": len(value), "maxItems": len(value)}
    if isinstance(value, str):
        return {"minLength": len(value), "maxLength": len(value)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"minimum": value, "maximum": value}
    return {}


def atoms(said: str | list[str]) -> frozenset[str]:
    """Give the types that ``type`` allows: a number is an integer or has a fraction."""
    named = {said} if isinstance(said, str) else set(said)
    return frozenset(named - {"number"}) | (NUMBERS if "number" in named else frozenset())


def type_of(value: Any) -> str:
    """Give the type of a value; 1.0 is an integer."""
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "integer" if isinstance(value, int) or value.is_integer() else "fraction"


def validator_of(schema: Schema) -> jsonschema_rs.Validator | None:
    """Compile a schema without references, once; None for one with references."""
    kept: dict[int, jsonschema_rs.Validator | None] = schema.document.validators
    if id(schema.raw) not in kept:
        kept[id(schema.raw)] = None
        if isinstance(schema.raw, dict) and not has_references(schema.raw):
            with contextlib.suppress(InvalidSchema):
                kept[id(schema.raw)] = compiled({**schema.raw, "$schema": _META[schema.document.draft]}, {})
    return kept[id(schema.raw)]


def accepts(schema: Schema, value: Any) -> bool | None:
    """Say whether a schema accepts a value; None where that cannot be told here."""
    if isinstance(schema.raw, bool):
        return schema.raw
    validator = validator_of(schema)
    return None if validator is None else validator.is_valid(value)


_META = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}


@lru_cache(maxsize=512)
def _pattern(pattern: str) -> jsonschema_rs.Validator:
    return compiled({"pattern": pattern}, {})


@lru_cache(maxsize=4096)
def is_match(pattern: str, text: str) -> bool:
    """Search a text for a pattern, on a linear-time engine."""
    return _pattern(pattern).is_valid(text)


def exact(number: Any) -> Fraction:
    """Give a number as it is written in JSON."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
