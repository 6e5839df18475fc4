"""Avro: what a reader's schema can make of data that another wrote, by table; and what is no schema."""

from __future__ import annotations

import pytest

from events.compatibility.avro import find_avro_mismatch
from events.compatibility.budget import Budget
from gateway.schemas.avro import is_scalar, normalize, parse
from gateway.schemas.errors import InvalidSchema, TooComplex


def record(*fields, name="R", **more):
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name, type_, **more):
    return {"name": name, "type": type_, **more}


def fault(reader, writer):
    return find_avro_mismatch(parse(reader), parse(writer), Budget())


A = field("a", "int")
ENUM = {"type": "enum", "name": "E", "symbols": ["X", "Y"]}
CHANGES = {
    "nothing": (record(A), record(A), True, True),
    "field added with a default": (record(A), record(A, field("b", "string", default="")), True, True),
    "field added without": (record(A), record(A, field("b", "string")), False, True),
    "field with a default removed": (record(A, field("b", "int", default=0)), record(A), True, True),
    "renamed": (record(A), record(field("b", "int")), False, False),
    "renamed with an alias": (record(A), record(field("b", "int", aliases=["a"])), True, False),
    "renamed with a default": (record(A), record(field("b", "int", default=1)), True, False),
    "widened": (record(A), record(field("a", "long")), True, False),
    "narrowed": (record(field("a", "double")), record(field("a", "float")), False, True),
    "int to string": (record(A), record(field("a", "string")), False, False),
    "string and bytes": ("string", "bytes", True, True),
    "made nullable": (record(A), record(field("a", ["null", "int"])), True, False),
    "branch added": (["null", "int"], ["null", "int", "string"], True, False),
    "branch widened": (["null", "int"], ["null", "long"], True, False),
    "nested, field added": (
        record(field("n", record(A, name="N"))), record(field("n", record(A, field("b", "int"), name="N"))),
        False, True,
    ),
    "in an array": (
        {"type": "array", "items": record(A)}, {"type": "array", "items": record(A, field("b", "int", default=2))},
        True, True,
    ),
    "items narrowed": ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, False, True),
    "values of a map": ({"type": "map", "values": "int"}, {"type": "map", "values": "double"}, True, False),
    "array to map": ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, False, False),
    "symbol added": (ENUM, {**ENUM, "symbols": ["X", "Y", "Z"]}, True, False),
    "symbol added, with a default": ({**ENUM, "default": "X"}, {**ENUM, "symbols": ["X", "Y", "Z"]}, True, True),
    "fixed of another size": (
        {"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 8}, False, False,
    ),
    "another name": (record(A, name="R"), record(A, name="S"), False, False),
    "another name with an alias": (record(A, name="R"), record(A, name="S", aliases=["R"]), True, False),
    "itself within": (
        record(A, field("next", ["null", "R"], default=None)),
        record(field("a", "long"), field("next", ["null", "R"], default=None)), True, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "is_backward", "is_forward"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_readable_as_it_should_be(old, new, is_backward, is_forward):
    assert (fault(new, old) is None, fault(old, new) is None) == (is_backward, is_forward)


def test_a_mismatch_names_its_place():
    text = str(fault(record(field("b", "string")), record(A)))
    assert text == "READER_FIELD_MISSING_DEFAULT_VALUE at #/fields/0: b has no default"


def test_comparing_has_an_end():
    deep = "int"
    for _ in range(70):
        deep = {"type": "array", "items": deep}
    with pytest.raises(TooComplex):
        fault(deep, deep)
    wide = record(*(field(f"f{number}", "int") for number in range(50)))
    with pytest.raises(TooComplex):
        find_avro_mismatch(parse(wide), parse(wide), Budget(20))


def test_a_default_is_looked_at_once_whatever_unions_lead_to_it():
    second = {"type": "record", "name": "B", "fields": [{"name": "f", "type": ["null", "A", "B"]}]}
    first = {"type": "record", "name": "A", "fields": [{"name": "f", "type": ["null", "A", second]}]}
    deep = 5
    for _ in range(55):
        deep = {"f": deep}
    with pytest.raises(InvalidSchema, match="default of u"):
        parse(record(field("u", [first, "B"], default=deep)))


@pytest.mark.parametrize(
    ("schema", "at"),
    [
        ("nothing", ""),
        ({"type": "record", "name": "R"}, ""),
        (record(A, A), "/fields"),
        (record(field("a", "int", default="x")), "/fields/0/default"),
        (record(field("a b", "int")), "/fields/0"),
        (["int", "int"], ""),
        ([["int"]], ""),
        ({"type": "enum", "name": "E", "symbols": ["X", "X"]}, "/symbols"),
        ({"type": "fixed", "name": "F", "size": -1}, "/size"),
        ({"type": "array"}, ""),
        (record(field("a", record(A)), name="R"), "/fields/0/type/name"),
        (5, ""),
    ],
)
def test_an_invalid_schema_is_refused_with_its_place(schema, at):
    with pytest.raises(InvalidSchema) as refused:
        parse(schema)
    assert refused.value.pointer == at


def test_a_normal_form_says_names_whole_and_types_short():
    given = {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "a", "type": {"type": "int"}}]}
    assert normalize(given) == {"type": "record", "name": "n.R", "fields": [{"name": "a", "type": "int"}]}


def test_a_symbol_is_looked_for_without_going_through_all_of_them():
    compared = []

    class Symbol(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    node = parse({"type": "enum", "name": "E", "symbols": [f"S{number}" for number in range(1000)]})
    assert is_scalar(node, Symbol("S999"))
    assert not is_scalar(node, Symbol("T"))
    assert len(compared) < 50
