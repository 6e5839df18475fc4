"""JSON Schema: what one version accepts and another does not, by table and by generated cases."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from events.compatibility.budget import Budget
from events.compatibility.json_documents import Document
from events.compatibility.json_schema import find_json_mismatch
from gateway.schemas.errors import TooComplex
from gateway.schemas.json_schema import compile_validator

CLOSED = {"type": "object", "additionalProperties": False}
OPEN = {"type": "object"}


def fault(reader, writer, **others):
    return find_json_mismatch(Document.of(reader, others), Document.of(writer, others), Budget())


def obj(properties, required=(), *, is_open=False, **more):
    return {**(OPEN if is_open else CLOSED), "properties": properties, "required": list(required), **more}


A, B = {"type": "integer"}, {"type": "string"}
CHANGES = {
    "nothing": (obj({"a": A}), obj({"a": A}), True, True),
    "optional added, closed": (obj({"a": A}), obj({"a": A, "b": B}), True, False),
    "optional added, open": (obj({"a": A}, is_open=True), obj({"a": A, "b": B}, is_open=True), False, True),
    "anything added, open": (obj({"a": A}, is_open=True), obj({"a": A, "b": {}}, is_open=True), True, True),
    "optional removed, closed": (obj({"a": A, "b": B}), obj({"a": A}), False, True),
    "optional removed, open": (obj({"a": A, "b": B}, is_open=True), obj({"a": A}, is_open=True), True, False),
    "required added": (obj({"a": A}), obj({"a": A, "b": B}, ["b"]), False, False),
    "required added with a default": (obj({"a": A}), obj({"a": A, "b": {**B, "default": "x"}}, ["b"]), True, False),
    "required added with a wrong default": (
        obj({"a": A}), obj({"a": A, "b": {**B, "default": 1}}, ["b"]), False, False,
    ),
    "required removed, closed": (obj({"a": A, "b": B}, ["b"]), obj({"a": A}), False, False),
    "required made optional": (obj({"a": A}, ["a"]), obj({"a": A}), True, False),
    "optional made required": (obj({"a": A}), obj({"a": A}, ["a"]), False, True),
    "required added with a default behind a reference": (
        obj({"a": A}), obj({"a": A, "b": {"$ref": "#/$defs/b", "default": "x"}}, ["b"], **{"$defs": {"b": B}}),
        True, False,
    ),
    "required added with a default, or null": (
        {"anyOf": [{"type": "null"}, obj({"a": A})]},
        {"anyOf": [{"type": "null"}, obj({"a": A, "b": {**B, "default": "x"}}, ["b"])]}, True, False,
    ),
    "required added with a default, or one of null": (
        {"oneOf": [{"type": "null"}, obj({"a": A})]},
        {"oneOf": [{"type": "null"}, obj({"a": A, "b": {**B, "default": "x"}}, ["b"])]}, True, False,
    ),
    "required added with a default to one of two objects": (
        {"oneOf": [obj({"t": {"const": 1}, "a": A}, ["t"]), obj({"t": {"const": 2}}, ["t"])]},
        {"oneOf": [obj({"t": {"const": 1}, "a": A, "b": {**B, "default": "x"}}, ["t", "b"]),
                   obj({"t": {"const": 2}}, ["t"])]}, True, False,
    ),
    "filled in, it would be the other one too": (
        {"oneOf": [obj({"a": A}, ["a"]), obj({"c": A}, ["c"])]},
        {"oneOf": [obj({"a": A, "b": {**B, "default": "x"}}, ["a", "b"]), obj({"a": A, "b": B, "d": A}, ["a", "b"])]},
        False, False,
    ),
    "optional added, closed to what is not evaluated": (
        {"type": "object", "properties": {"a": A}, "unevaluatedProperties": False},
        {"type": "object", "properties": {"a": A, "b": B}, "unevaluatedProperties": False}, True, False,
    ),
    "what is not evaluated beside another schema is not told": (
        {"type": "object", "properties": {"a": A}, "allOf": [{"properties": {"b": B}}], "unevaluatedProperties": False},
        obj({"a": A}), False, False,
    ),
    "tuple lengthened, closed to what is not evaluated": (
        {"type": "array", "prefixItems": [A], "unevaluatedItems": False},
        {"type": "array", "prefixItems": [A, B], "unevaluatedItems": False}, True, False,
    ),
    "default added": (obj({"a": A}), obj({"a": {**A, "default": 1}}), True, True),
    "renamed, closed": (obj({"a": A}, ["a"]), obj({"b": A}, ["b"]), False, False),
    "renamed, optional, closed": (obj({"a": A}), obj({"b": A}), False, False),
    "renamed, optional, open": (obj({"a": A}, is_open=True), obj({"b": A}, is_open=True), False, False),
    "widened": (obj({"a": A}), obj({"a": {"type": "number"}}), True, False),
    "narrowed": (obj({"a": {"type": "number"}}), obj({"a": A}), False, True),
    "changed": (obj({"a": A}), obj({"a": B}), False, False),
    "made nullable": (obj({"a": A}), obj({"a": {"type": ["integer", "null"]}}), True, False),
    "enum widened": (obj({"a": {"enum": ["x"]}}), obj({"a": {"enum": ["x", "y"]}}), True, False),
    "const to enum": (obj({"a": {"const": 1}}), obj({"a": {"enum": [1.0, 2]}}), True, False),
    "minimum raised": (obj({"a": {**A, "minimum": 1}}), obj({"a": {**A, "minimum": 2}}), False, True),
    "exclusive minimum of integers": (
        obj({"a": {**A, "exclusiveMinimum": 1}}), obj({"a": {**A, "minimum": 2}}), True, True,
    ),
    "length lowered": (obj({"a": {**B, "maxLength": 5}}), obj({"a": {**B, "maxLength": 4}}), False, True),
    "pattern added": (obj({"a": B}), obj({"a": {**B, "pattern": "^x"}}), False, True),
    "format added": (obj({"a": B}), obj({"a": {**B, "format": "date"}}), False, True),
    "multiple": (obj({"a": {"multipleOf": 0.4}}), obj({"a": {"multipleOf": 0.2}}), True, False),
    "closed made open": (obj({"a": A}), obj({"a": A}, is_open=True), True, False),
    "values given a type": (
        {"type": "object", "additionalProperties": True}, {"type": "object", "additionalProperties": B}, False, True,
    ),
    "patterns": (
        {"type": "object", "patternProperties": {"^x": A}, "additionalProperties": False},
        {"type": "object", "patternProperties": {"^x": {"type": "number"}}},
        True, False,
    ),
    "branch added": ({"oneOf": [A, B]}, {"oneOf": [A, B, {"type": "null"}]}, True, False),
    "overlapping branch added": ({"oneOf": [A, B]}, {"oneOf": [A, B, {"type": "number"}]}, False, False),
    "any branch added": ({"anyOf": [A, B]}, {"anyOf": [A, B, {"type": "number"}]}, True, False),
    "branches told apart by a constant": (
        {"oneOf": [obj({"t": {"const": "a"}, "v": A}, ["t"]), obj({"t": {"const": "b"}}, ["t"])]},
        {"oneOf": [obj({"t": {"const": "b"}}, ["t"]), obj({"t": {"const": "a"}, "v": A, "w": B}, ["t"]),
                   obj({"t": {"const": "c"}}, ["t"])]},
        True, False,
    ),
    "types split over branches": ({"type": ["string", "integer"]}, {"anyOf": [A, B]}, True, True),
    "enum split over branches": ({"enum": ["x", 1]}, {"anyOf": [A, B]}, True, False),
    "all of": ({"allOf": [{"minimum": 1}, A]}, {"type": "integer", "minimum": 1}, True, True),
    "not narrowed": ({"type": "string"}, {"not": {"type": "integer"}}, True, False),
    "not widened": ({"not": {"type": "number"}}, {"not": A}, True, False),
    "tuple": ({"type": "array", "prefixItems": [A]}, {"type": "array", "prefixItems": [A, B]}, False, True),
    "tuple lengthened, closed": (
        {"type": "array", "prefixItems": [A], "items": False},
        {"type": "array", "prefixItems": [A, B], "items": False}, True, False,
    ),
    "items unique": ({"type": "array"}, {"type": "array", "uniqueItems": True}, False, True),
    "condition": (
        {"type": "object", "properties": {"k": {"const": 1}, "v": A}, "required": ["k"]},
        {"type": "object", "if": {"properties": {"k": {"const": 1}}}, "then": {"properties": {"v": A}}},
        True, False,
    ),
    "draft 4 bounds": (
        {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 1},
        {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 0,
         "exclusiveMinimum": True},
        True, True,
    ),
    "siblings of a reference in draft 7": (
        {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "minimum": 5,
         "definitions": {"a": A}},
        {"type": "integer", "minimum": 5}, False, True,
    ),
}  # fmt: skip
PLACES = {
    "at the top": lambda schema: schema,
    "nested": lambda schema: obj({"deep": obj({"in": schema}, ["in"])}, ["deep"]),
    "in an array": lambda schema: {"type": "array", "items": obj({"in": schema})},
    "behind a reference": lambda schema: {"$defs": {"x": schema}, "type": "array", "items": {"$ref": "#/$defs/x"}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_decided_both_ways_wherever_it_is_made(change, place):
    old, new, is_backward, is_forward = CHANGES[change]
    if {"$schema", "$defs"} & {*old, *new} and place != "at the top":
        return  # Its draft is said at the root, and references are told from there.
    old, new = PLACES[place](old), PLACES[place](new)
    assert (fault(new, old) is None, fault(old, new) is None) == (is_backward, is_forward)


def test_recursive_schemas_are_compared():
    def tree(value):
        return {"$ref": "#/$defs/t", "$defs": {"t": obj({"v": value, "next": {"$ref": "#/$defs/t"}})}}

    assert fault(tree({"type": "number"}), tree(A)) is None
    assert fault(tree(A), tree({"type": "number"})) is not None
    assert fault({"$ref": "#"}, {"type": "string"}) is not None
    assert fault({"anyOf": [{"$ref": "#"}]}, {"type": "string"}) is not None


def test_schemas_of_other_subjects_are_followed():
    person = obj({"name": B})
    assert fault({"type": "array", "items": {"$ref": "person.json"}}, {"type": "array", "items": person},
                 **{"person.json": person}) is None  # fmt: skip
    assert fault({"$ref": "http://h/person.json#/properties/name"}, B, **{"http://h/person.json": person}) is None
    assert fault({"$ref": "nobody.json"}, B) is not None


def test_a_mismatch_names_its_place():
    body = str(fault(obj({"a/b": A}), obj({"a/b": {"type": "number"}})))
    assert body == "TYPE_NARROWED at #/properties/a~1b/type: fraction is no longer accepted"


def test_comparing_has_an_end():
    big = {"anyOf": [obj({f"p{n}": {"anyOf": [{"minimum": m} for m in range(8)]} for n in range(8)}) for _ in range(8)]}
    other = {"oneOf": [obj({f"p{n}": {"anyOf": [{"maximum": m} for m in range(8)]} for n in range(9)})
                       for _ in range(30)]}  # fmt: skip
    budget = Budget(1000)
    with pytest.raises(TooComplex):
        find_json_mismatch(Document.of(other), Document.of(big), budget)
    assert budget.depth == 0
    chain = {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(500)}, "$ref": "#/$defs/d0"}
    with pytest.raises(TooComplex):
        fault(chain, {"type": "string"})


NAMES = st.sampled_from(["a", "b", "ab"])
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 2, 1.5, 3.0, "", "a", "ab", "xyz", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "null", "boolean", "object", "array",
                                 ["string", "null"], ["integer", "string"]]),
        "minimum": st.sampled_from([0, 1, 1.5]),
        "exclusiveMaximum": st.sampled_from([1, 2, 3]),
        "multipleOf": st.sampled_from([1, 0.5, 2]),
        "minLength": st.integers(0, 2),
        "maxLength": st.integers(1, 3),
        "pattern": st.sampled_from(["^a", "b$"]),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 3),
        "uniqueItems": st.booleans(),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(0, 3),
        "required": st.lists(NAMES, unique=True, max_size=2),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=2), max_size=1),
    },
)  # fmt: skip


def _inner(schemas):
    schemas = schemas | st.booleans()
    return LEAVES.flatmap(
        lambda leaf: st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(NAMES, schemas, max_size=2),
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), schemas, max_size=2),
                "additionalProperties": schemas,
                "propertyNames": schemas,
                "dependentSchemas": st.dictionaries(NAMES, schemas, max_size=1),
                "prefixItems": st.lists(schemas, min_size=1, max_size=2),
                "items": schemas,
                "contains": schemas,
                "unevaluatedProperties": schemas,
                "unevaluatedItems": schemas,
                "minContains": st.integers(0, 2),
                "maxContains": st.integers(0, 2),
                "anyOf": st.lists(schemas, min_size=1, max_size=2),
                "oneOf": st.lists(schemas, min_size=1, max_size=2),
                "allOf": st.lists(schemas, min_size=1, max_size=2),
                "not": schemas,
                "if": schemas,
                "then": schemas,
                "else": schemas,
                "$ref": st.sampled_from(["#", "#/$defs/x"]),
            },
        ).map(lambda more: {**leaf, **more})
    )


SCHEMAS = st.recursive(LEAVES, _inner, max_leaves=4)


@st.composite
def documents(draw):
    """A schema, small enough that instances of it are met by chance."""
    schema = draw(SCHEMAS)
    keep = draw(st.integers(1, 4))
    return {**dict(list(schema.items())[:keep]), "$defs": {"x": draw(LEAVES)}}


@st.composite
def pairs(draw):
    """Two versions of a schema: the second is the first with a part changed, or another one altogether."""
    old = draw(documents())
    new = dict(old)
    new |= {word: value for word, value in draw(documents()).items() if draw(st.booleans())}
    for word in draw(st.lists(st.sampled_from(sorted(new)), max_size=2)):
        if word != "$defs":
            new.pop(word, None)
    return old, new


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(pairs(), st.lists(VALUES, min_size=30, max_size=60))
def test_schemas_proved_compatible_accept_the_same_instances(pair, instances):
    old, new = pair
    try:
        if fault(new, old) is not None:
            return
    except TooComplex:
        return
    before, after = compile_validator(old, {}), compile_validator(new, {})
    for instance in instances:
        assert after.is_valid(instance) or not before.is_valid(instance), (old, new, instance)


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(documents())
def test_every_schema_is_compatible_with_itself(schema):
    assume("$ref" not in schema)
    assert fault(schema, {**schema}) is None


LARGE = {
    "references to one large schema": lambda n: {
        "properties": {f"p{i}": {"$ref": "#/$defs/big"} for i in range(n)},
        "$defs": {"big": {"enum": list(range(4 * n))}},
    },
    "branches": lambda n: {"anyOf": [{"const": i} for i in range(n)]},
    "branches of which one holds": lambda n: {"oneOf": [{"const": i} for i in range(n)]},
    "required": lambda n: {"required": [f"p{i}" for i in range(4 * n)]},
    "patterns": lambda n: {
        "patternProperties": {f"^a{i}": {"type": "string"} for i in range(n)},
        "properties": {f"a{i}": {"type": "string"} for i in range(n)},
    },
    "anchors": lambda n: {
        "properties": {f"p{i}": {"$ref": f"#a{i}"} for i in range(n)},
        "$defs": {f"d{i}": {"$anchor": f"a{i}", "type": "integer"} for i in range(n)},
    },
    "parts": lambda n: {"allOf": [{"properties": {f"p{i}": {"type": "string"}}} for i in range(n)]},
}  # fmt: skip
LINES_MAX = 60_000_000
"""Three times what the costliest of them takes; without the bounds they take a hundred times as much."""


@contextlib.contextmanager
def at_most_lines():
    """Bound the lines of Python that run within: they are the same on every machine, however busy."""
    left = LINES_MAX

    def count(frame, event, arg):
        nonlocal left
        left -= 1
        if left < 0:
            raise AssertionError("runs for too long")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("kind", LARGE)
def test_large_schemas_are_compared_or_given_up_soon(kind):
    def change(schema):
        return json.loads(json.dumps(schema).replace('"string"', '["string", "null"]').replace('"integer"', '"number"'))

    old = LARGE[kind](1000)
    new = {**change(old), "title": "changed"}
    with at_most_lines(), contextlib.suppress(TooComplex):
        fault(new, old)
