import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Reason, Refused
from gateway.wire import strict_json
from gateway.wire.strict_json import dump, parse, pointer

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("añ\"\\{[:,\n"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab:\""), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_any_json_value_is_parsed_without_loss(value):
    assert parse(json.dumps(value)) == value
    assert json.loads(dump(parse(json.dumps(value)))) == value


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b"'a'", b"{\"a\":1,}", b"01", b"\xff", b'"\xed\xa0\x80"',
        b'"\\ud800"', b'"\\udc00\\ud800"', b'{"a":1,"a":1}', b'{"x":{"a":1,"b":2,"a":3}}', b'[{"a":1},{"b":1,"b":1}]',
        b"[" * 65 + b"]" * 65, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 65 + b"1" + b"}" * 65, b"1" * 5_000,
        b"1e999", b"0." + b"1" * 500, b'"\x00"', b"\xef\xbb\xbf1", b"1 2",
    ],
)  # fmt: skip
def test_what_is_not_strict_json_within_bounds_is_refused(text):
    with pytest.raises(Refused) as refused:
        parse(text)
    assert refused.value.reason is Reason.INVALID_PAYLOAD
    assert refused.value.members == {"pointer": ""}


def test_bounds_leave_room_for_what_is_long_but_not_deep():
    assert parse(b"[" + b"[],{}," * 500 + b"0]")
    assert parse(b'"' + b"[" * 1000 + b"1" * 1000 + b'"')
    assert parse(b"[" * 64 + b"]" * 64)
    assert parse(b'{"a":"x:y","b":{"c":"{:"}}') == {"a": "x:y", "b": {"c": "{:"}}


def test_every_digit_of_an_integer_is_kept():
    text = b'{"n":123456789012345678901234567890}'
    assert dump(parse(text)) == text


def test_a_pointer_is_escaped_as_rfc_6901_requires():
    assert pointer(["a/b", 0, "~"]) == "/a~1b/0/~0"


def test_a_duplicate_member_is_found_without_comparing_all_pairs():
    compared = []

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    pairs = [(Name(number), number) for number in [*range(1000), 999]]
    with pytest.raises(strict_json.DuplicateMember, match=r"^999$"):
        strict_json._members(pairs)
    assert len(compared) < 10_000
