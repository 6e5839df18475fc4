"""Schemas and values whose check would take too long are refused beforehand, or without detail."""

import pytest

from gateway.refusals import Refused
from gateway.schemas import effort
from gateway.schemas.checker import compile_schema
from gateway.schemas.effort import EVALUATIONS_MAX, Effort, Unbounded, effort_of
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import read
from gateway.wire.strict_json import dump


def multiplied(levels, word="anyOf"):
    """A schema that is small, and doubles at each level."""
    definitions = {f"d{n}": {word: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


def members_multiplied(levels):
    """The same by members: a name is looked at by itself and by its pattern."""
    inner = [{"$ref": f"#/$defs/d{n + 1}"} for n in range(levels)]
    definitions = {
        f"d{n}": {"properties": {"a": each}, "patternProperties": {"^a": each}} for n, each in enumerate(inner)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "integer"}}}


@pytest.mark.parametrize(
    "schema",
    [
        *(multiplied(40, word) for word in ("anyOf", "oneOf", "allOf")),
        members_multiplied(40),
        {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5000)}},
    ],
)
def test_a_schema_whose_branches_multiply_is_refused(schema):
    with pytest.raises(Unbounded):
        effort_of(schema)
    with pytest.raises(InvalidSchema):
        compile_schema(schema)
    with pytest.raises(InvalidSchema):
        read("JSON", dump(schema).decode())


def test_branches_multiply_through_other_subjects_too():
    others = {f"s{n}.json": {"anyOf": [{"$ref": f"s{n + 1}.json"}] * 2} for n in range(40)} | {"s40.json": {}}
    with pytest.raises(Unbounded):
        effort_of({"$ref": "s0.json"}, others)


TREE = {"type": "object", "properties": {"v": {}, "kids": {"type": "array", "items": {"$ref": "#"}}}}


@pytest.mark.parametrize(
    ("schema", "evaluations", "recursions"),
    [
        ({}, 1, 0),
        (True, 1, 0),
        ({"properties": {name: {"type": "string"} for name in "abcdef"}}, 2, 0),
        ({"oneOf": [{"const": n} for n in range(200)]}, 201, 0),
        (TREE, 4, 1),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$anchor": "a", "anyOf": [{"$ref": "#a"}, {}]}}}, 5, 1),
        ({"properties": {"x": {"$ref": "#/nowhere"}, "enum": {}, "const": {"$ref": "#"}}}, 3, 1),
    ],
)
def test_the_checks_that_a_schema_needs_are_counted(schema, evaluations, recursions):
    effort = effort_of(schema)
    assert (effort.evaluations, effort.recursions) == (evaluations, recursions)


def test_a_schema_in_a_circle_is_taken_and_deep_data_is_checked_by_it():
    tree = {
        "anyOf": [{"type": "array", "items": {"$ref": "#"}, word: 9} for word in ("maxItems", "minItems")]
        + [{"const": 1}]
    }
    deep = 2
    for _ in range(60):
        deep = [deep]
    with pytest.raises(Refused) as refused:
        compile_schema(tree).check(deep)
    assert (refused.value.reason.value, refused.value.members) == ("invalid-payload", {"pointer": ""})
    assert compile_schema(tree).violation([2]).pointer == ""


def test_a_large_value_is_refused_without_a_copy_for_each_branch():
    checker = compile_schema({"oneOf": [{"properties": {"t": {"const": n}}, "type": "object"} for n in range(300)]})
    large = checker.violation(list(range(2_000)))
    assert large.message == "The value does not match its schema; it is too large to locate the error."
    assert checker.violation({"t": "x"}).message != large.message
    plain = compile_schema({"properties": {"list": {"items": {"type": "integer"}}}})
    assert plain.violation({"list": [*range(40_000), "x"]}).pointer == "/list/40000"


def test_describing_is_bounded_by_value_branches_and_depth():
    assert Effort().allows_describing(list(range(1000)))
    assert not Effort().allows_describing([[0] * 1000] * 1000)
    assert not Effort(EVALUATIONS_MAX, has_branches=True).allows_describing([1, 2])
    assert Effort(5, has_branches=True, recursions=1).allows_describing([[[[[[[[1]]]]]]]])
    assert not Effort(5, has_branches=True, recursions=10).allows_describing([[[[[[[[1]]]]]]]])


def test_a_document_is_gone_through_once_however_many_parts_are_referred_to_by_name(monkeypatch):
    gone_through, inside = [], effort._inside
    monkeypatch.setattr(effort, "_inside", lambda node: gone_through.append(node) or inside(node))
    named = {f"d{number}": {"$anchor": f"n{number}", "anyOf": [{}, {}]} for number in range(50)}
    other = {"$id": "other.json", "$defs": {"d": {"$anchor": "n0"}}}
    schema = {"$defs": named, "allOf": [*({"$ref": f"#n{number}"} for number in range(50)), {"$ref": "other.json#n0"}]}
    assert effort_of(schema, {"other.json": other}).evaluations == 1 + 50 * 4 + 2
    assert gone_through == [schema, other]


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"enum": [[n, n] for n in range(4000)]}},
        {"items": {"allOf": [{"not": {"const": -n}} for n in range(1, 2000)]}},
    ],
)
def test_a_large_value_is_not_checked_by_a_schema_that_asks_for_much_of_each(schema):
    checker = compile_schema(schema)
    with pytest.raises(Refused, match="invalid-payload"):
        checker.check([0] * 100_000)
    assert not checker.is_valid([0] * 100_000)


def test_a_small_value_is_checked_by_any_schema_and_a_large_one_by_a_small_schema():
    compile_schema({"items": {"enum": [[n, n] for n in range(4000)]}}).check([[7, 7]] * 5)
    compile_schema({"items": {"type": "integer"}}).check([0] * 1_000_000)
