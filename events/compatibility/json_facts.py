"""The facts that a conjunction of JSON Schemas implies about an instance, collected by kind of value."""

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
from gateway.schemas.json_schema import compile_validator

NUMBERS = frozenset({"integer", "fraction"})
TYPES = frozenset({"null", "boolean", "string", "array", "object"}) | NUMBERS
VALUES_MAX = 200
MATCH = 16
"""Small steps of matching a name against a pattern, which may have to be compiled."""
_NO_DOCUMENT = Document(True)


@dataclass(frozen=True, slots=True)
class Known:
    """The schemas that an instance is known to satisfy, and those that it is known not to."""

    parts: tuple[Schema, ...]
    excluded: tuple[Schema, ...] = ()
    used: frozenset[tuple[int, int]] = frozenset()
    """Choices that were already split into cases."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the same knowledge, in any order."""
        return (
            frozenset(part.key for part in self.parts),
            frozenset(part.key for part in self.excluded),
            self.used,
        )

    def also(self, *parts: Schema, excluded: Iterable[Schema] = (), used: tuple[int, int] | None = None) -> Known:
        """Return this knowledge with more parts and exclusions, and one more choice used."""
        more = self.used if used is None else self.used | {used}
        return Known((*self.parts, *parts), (*self.excluded, *excluded), more)


@dataclass(frozen=True, slots=True)
class Choice:
    """A disjunction: one of several cases holds."""

    key: tuple[int, int]
    cases: tuple[tuple[tuple[Schema, ...], tuple[Schema, ...]], ...]
    """For each case, the schemas that hold and those that do not."""


@dataclass(slots=True)
class Facts:
    """All that is known of an instance, with references followed and ``allOf`` flattened."""

    budget: Budget
    parts: list[tuple[dict[str, Any], Schema]] = field(default_factory=list)
    excluded: list[Schema] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    types: frozenset[str] = TYPES
    values: list[Any] | None = None
    """All possible values, if they are listed."""

    def values_of(self, word: str) -> list[Any]:
        """Return the values that the parts have for a keyword."""
        return [keywords[word] for keywords, _ in self.parts if word in keywords]

    def schemas(self, word: str) -> list[Schema]:
        """Return the schemas that the parts have for a keyword."""
        return [schema.inner(keywords[word]) for keywords, schema in self.parts if word in keywords]

    def most(self, word: str, default: float = 0) -> Any:
        """Return the strictest of the lower bounds."""
        return max(self.values_of(word), default=default)

    def least(self, word: str) -> Any:
        """Return the strictest of the upper bounds."""
        return min(self.values_of(word), default=math.inf)

    def required(self) -> set[str]:
        """Return the names of the members that every instance has."""
        return {name for names in self.values_of("required") for name in names}

    def lower(self) -> tuple[Any, bool]:
        """Return the lower bound of numbers and whether it is exclusive."""
        bounds = [(bound, False) for bound in self.values_of("minimum")] + [
            (bound, True) for bound in self.values_of("exclusiveMinimum")
        ]
        bound, is_excluded = max(bounds, default=(-math.inf, False))
        if not self.types & {"fraction"} and bound != -math.inf:
            return (math.floor(bound) + 1 if is_excluded else math.ceil(bound)), False
        return bound, is_excluded

    def upper(self) -> tuple[Any, bool]:
        """Return the upper bound of numbers and whether it is exclusive."""
        bounds = [(bound, False) for bound in self.values_of("maximum")] + [
            (bound, True) for bound in self.values_of("exclusiveMaximum")
        ]
        bound, is_excluded = min(bounds, default=(math.inf, False), key=lambda each: (each[0], not each[1]))
        if not self.types & {"fraction"} and bound != math.inf:
            return (math.ceil(bound) - 1 if is_excluded else math.floor(bound)), False
        return bound, is_excluded

    def member(self, name: str) -> tuple[Schema, ...]:
        """Return every schema that a member of this name satisfies, if present. Raises TooComplex."""
        schemas: list[Schema] = []
        self.budget.spend(len(self.parts))
        for keywords, schema in self.parts:
            own = [keywords["properties"][name]] if name in keywords.get("properties", {}) else []
            own += [
                inner
                for pattern, inner in keywords.get("patternProperties", {}).items()
                if self.is_match(pattern, name)
            ]
            if not own and "additionalProperties" in keywords:
                own = [keywords["additionalProperties"]]
            schemas += [schema.inner(raw) for raw in own]
        return tuple(schemas)

    def is_match(self, pattern: str, name: str) -> bool:
        """Return whether a name matches a pattern. Raises TooComplex."""
        self.budget.spend(MATCH)
        return is_match(pattern, name)

    def item(self, number: int) -> tuple[Schema, ...]:
        """Return every schema that the item at this index satisfies, if present. Raises TooComplex."""
        schemas = []
        self.budget.spend(len(self.parts))
        for keywords, schema in self.parts:
            prefix = keywords.get("prefixItems", ())
            if number < len(prefix):
                schemas.append(schema.inner(prefix[number]))
            elif "items" in keywords:
                schemas.append(schema.inner(keywords["items"]))
        return tuple(schemas)

    def names(self) -> set[str]:
        """Return the names of all members that a part names."""
        return {name for members in self.values_of("properties") for name in members} | self.required()

    def min_properties(self) -> Any:
        """Return the least number of members."""
        return max(self.most("minProperties"), len(self.required()))

    def max_properties(self) -> Any:
        """Return the greatest number of members."""
        closed = [
            len(keywords.get("properties", {}))
            for keywords, _ in self.parts
            if keywords.get("additionalProperties") is False and not keywords.get("patternProperties")
        ]
        return min([self.least("maxProperties"), *closed])

    def max_items(self) -> Any:
        """Return the greatest number of items."""
        closed = [len(keywords.get("prefixItems", ())) for keywords, _ in self.parts if keywords.get("items") is False]
        return min([self.least("maxItems"), *closed])

    def longest_prefix(self) -> int:
        """Return the number of items in the longest ``prefixItems``."""
        return max((len(prefix) for prefix in self.values_of("prefixItems")), default=0)


def facts_of(known: Known, budget: Budget) -> Facts:
    """Collect the facts. Keywords that are not understood are left out: that loses facts, but adds no wrong ones."""
    facts = Facts(budget, excluded=list(known.excluded))
    waiting, seen = list(known.parts[::-1]), set()
    while waiting:
        schema = waiting.pop()
        if schema.key in seen:
            continue
        seen.add(schema.key)
        with budget.step():
            keywords = schema.keywords()
            _take(facts, schema, keywords, waiting, known.used)
    if facts.values is None and facts.types <= {"null", "boolean"}:
        facts.values = [None] * ("null" in facts.types) + [False, True] * ("boolean" in facts.types)
    budget.spend(sum(len(choice.cases) for choice in facts.choices))
    if facts.values is not None:
        budget.spend(len(facts.values) * len(facts.parts))
        _filter_values(facts)
    return facts


def _take(
    facts: Facts, schema: Schema, keywords: dict[str, Any], waiting: list[Schema], used: frozenset[tuple[int, int]]
) -> None:
    facts.parts.append((keywords, schema))
    if "$ref" in keywords:
        target = schema.document.resolve(keywords["$ref"])
        if target is not None:
            waiting.append(target)
    waiting.extend(schema.inner(raw) for raw in keywords.get("allOf", ()))
    if "type" in keywords:
        facts.types &= atoms(keywords["type"])
    if "not" in keywords:
        facts.excluded.append(schema.inner(keywords["not"]))
    for values in ([keywords["const"]] if "const" in keywords else None, keywords.get("enum")):
        if values is not None and len(values) <= VALUES_MAX:
            facts.values = (
                list(values)
                if facts.values is None
                else [value for value in facts.values if any(same(value, other) for other in values)]
            )
    facts.choices += [choice for choice in _choices(schema, keywords) if choice.key not in used]


def _choices(schema: Schema, keywords: Mapping[str, Any]) -> Iterable[Choice]:
    if "anyOf" in keywords:
        branches = [schema.inner(raw) for raw in keywords["anyOf"]]
        yield Choice((id(keywords["anyOf"]), id(schema.document)), tuple(((branch,), ()) for branch in branches))
    if "oneOf" in keywords:
        branches = [schema.inner(raw) for raw in keywords["oneOf"]]
        cases = tuple(((branch,), tuple(other for other in branches if other is not branch)) for branch in branches)
        yield Choice((id(keywords["oneOf"]), id(schema.document)), cases)
    if "if" in keywords:
        condition = schema.inner(keywords["if"])
        then, otherwise = (schema.inner(keywords.get(word, True)) for word in ("then", "else"))
        yield Choice((id(keywords["if"]), id(schema.document)), (((condition, then), ()), ((otherwise,), (condition,))))


def _filter_values(facts: Facts) -> None:
    """Drop impossible values; describe a single remaining one by keywords."""
    values = [value for value in facts.values or () if type_of(value) in facts.types]
    for keywords, schema in facts.parts:
        if not {"enum", "const", "type"}.issuperset(keywords):
            values = [value for value in values if accepts(schema, value) is not False]
    facts.values = values
    facts.types &= frozenset(map(type_of, values))
    if len(values) == 1:
        raw = _described(values[0])
        facts.parts.append((raw, Schema(raw, _NO_DOCUMENT)))


def _described(value: Any) -> dict[str, Any]:
    """Return keywords that describe one value, so that it is compared part by part."""
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


def atoms(types: str | list[str]) -> frozenset[str]:
    """Return the types that ``type`` allows, ``number`` split into ``integer`` and ``fraction``."""
    named = {types} if isinstance(types, str) else set(types)
    return frozenset(named - {"number"}) | (NUMBERS if "number" in named else frozenset())


def type_of(value: Any) -> str:
    """Return the type of a value; 1.0 is an integer."""
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "integer" if isinstance(value, int) or value.is_integer() else "fraction"


def validator_of(schema: Schema) -> jsonschema_rs.Validator | None:
    """Return a schema compiled, once for each document; None if it has references."""
    compiled_by_id: dict[int, jsonschema_rs.Validator | None] = schema.document.validators
    if id(schema.raw) not in compiled_by_id:
        compiled_by_id[id(schema.raw)] = None
        if isinstance(schema.raw, dict) and not has_references(schema.raw):
            with contextlib.suppress(InvalidSchema):
                compiled_by_id[id(schema.raw)] = compile_validator(
                    {**schema.raw, "$schema": _META[schema.document.draft]}, {}
                )
    return compiled_by_id[id(schema.raw)]


def accepts(schema: Schema, value: Any) -> bool | None:
    """Return whether a schema accepts a value, or None if it cannot be compiled alone."""
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
    return compile_validator({"pattern": pattern}, {})


@lru_cache(maxsize=4096)
def is_match(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern, on a linear-time engine."""
    return _pattern(pattern).is_valid(text)


def exact(number: Any) -> Fraction:
    """Return the number exactly as it is written in JSON."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
