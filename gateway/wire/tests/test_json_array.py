import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Reason, Refused
from gateway.wire.json_array import cut_array, is_array

VALUES = st.recursive(
    st.none() | st.integers() | st.text('a"\\[]{},:\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[]{},:'), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=20), st.sampled_from([None, 1]))
def test_each_element_is_cut_out_as_it_was_written(values, indent):
    text = json.dumps(values, indent=indent).encode()
    elements = cut_array(b" \n" + text + b"\t", 20)
    assert [json.loads(element) for element in elements] == values
    assert all(element == element.strip() and element in text for element in elements)


def test_no_more_than_the_most_elements_are_looked_at():
    assert len(cut_array(b"[" + b"1," * 999 + b"1]", 1000)) == 1000
    with pytest.raises(Refused, match="more than 1000"):
        cut_array(b"[" + b"1," * 1000 + b"} this is never read", 1000)


@pytest.mark.parametrize(
    "text", [b"[", b"[1", b'["a', b"[1}", b"[1] 2", b"[[1]", b'[{"a":1]', b'["' + b'\\"' * 700_000, b"1", b""]
)
def test_what_does_not_end_as_an_array_is_refused(text):
    with pytest.raises(Refused) as refused:
        cut_array(text, 10)
    assert refused.value.reason is Reason.INVALID_PAYLOAD


@pytest.mark.parametrize(("text", "is_one"), [(b" \t\r\n[", True), (b"[]", True), (b"{[", False), (b"", False)])
def test_an_array_begins_with_a_bracket(text, is_one):
    assert is_array(text) is is_one


def test_an_empty_array_has_no_elements():
    assert cut_array(b"[ ]", 10) == []
