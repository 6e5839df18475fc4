import pytest

from gateway.refusals import Refused
from gateway.schemas.checker import Validators, compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.wire.strict_json import parse


def test_an_invalid_payload_is_refused_with_the_pointer_of_its_fault():
    schema = {"type": "object", "properties": {"a/b": {"items": {"type": "number"}}}, "required": ["a/b"]}
    check = Validators().check
    check(schema, {"a/b": [1, 2]})
    check(None, {"anything": 1})
    with pytest.raises(Refused) as refused:
        check(schema, {"a/b": [1, "x"]})
    assert refused.value.members == {"pointer": "/a~1b/1"}
    with pytest.raises(Refused) as refused:
        check(schema, {})
    assert refused.value.members == {"pointer": ""}


def test_a_schema_is_compiled_once():
    validators, schema = Validators(), {"type": "number"}
    for value in range(10):
        validators.check(schema, value)
    assert len(validators._compiled) == 1


def test_formats_are_asserted():
    with pytest.raises(Refused):
        Validators().check({"type": "string", "format": "date-time"}, "yesterday")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "file:///etc/passwd"}, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "(?=a)b"}, {"pattern": "(a"},
        {"type": "x"},
    ],
)  # fmt: skip
def test_a_schema_that_reaches_out_or_backtracks_is_invalid(schema):
    with pytest.raises(InvalidSchema):
        compile_schema(schema)


def test_a_recursive_schema_is_bounded_by_the_depth_of_what_it_checks():
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}
    Validators().check(schema, parse(b"[" * 64 + b"]" * 64))


def test_a_slow_pattern_costs_no_time():
    with pytest.raises(Refused):
        Validators().check({"pattern": "^(a+)+$"}, "a" * 50_000 + "b")
