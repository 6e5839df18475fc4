"""Steps of ``transform``: what each does to a document, and that none fails on JSON."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.json_steps import apply_steps
from gateway.policies.transform import _steps
from gateway.wire.strict_json import dump


def transformed(value, **steps):
    return apply_steps(_steps({"inbound": steps}, "inbound"), value)


@pytest.mark.parametrize(
    ("steps", "before", "after"),
    [
        ({"set": {"/a": 1}}, {}, {"a": 1}),
        ({"set": {"/a/b/c": 1}}, {"a": {"x": 1}}, {"a": {"x": 1, "b": {"c": 1}}}),
        ({"set": {"/a/b": 1}}, {"a": 5}, {"a": 5}),
        ({"set": {"/a/0": 1}}, {"a": [0, 2]}, {"a": [1, 2]}),
        ({"set": {"/a/2": 1}}, {"a": [0, 2]}, {"a": [0, 2]}),
        ({"set": {"/a/-": 1}}, {"a": [0]}, {"a": [0, 1]}),
        ({"set": {"/a/*/b": 1}}, {"a": [{}, {"b": 0}, 7]}, {"a": [{"b": 1}, {"b": 1}, 7]}),
        ({"set": {"/a/*": 1}}, {"a": {"x": 0, "y": 2}}, {"a": {"x": 1, "y": 1}}),
        ({"set": {"": [1]}}, {"a": 1}, [1]),
        ({"set": {"/a~1b": 1, "/m~0n": 2}}, {}, {"a/b": 1, "m~n": 2}),
        ({"remove": ["/a", "/none/at/all"]}, {"a": 1, "b": 2}, {"b": 2}),
        ({"remove": ["/0"]}, [1, 2], [2]),
        ({"remove": ["/01", "/-1", "/x"]}, [1, 2], [1, 2]),
        ({"remove": ["/*/id"]}, [{"id": 1, "n": 1}, {"id": 2}], [{"n": 1}, {}]),
        ({"remove": ["/a/*"]}, {"a": [1, 2]}, {"a": []}),
        ({"rename": {"/a": "/b"}}, {"a": 1}, {"b": 1}),
        ({"rename": {"/a": "/b/c"}}, {"a": 1, "b": 5}, {"a": 1, "b": 5}),
        ({"rename": {"/a/b": "/c/d"}}, {"a": {"b": 1}}, {"a": {}, "c": {"d": 1}}),
        ({"rename": {"/*/a": "/*/b"}}, [{"a": 1}, {}], [{"b": 1}, {}]),
        ({"rename": {"/a": "/b"}, "remove": ["/b"], "set": {"/b": 9}}, {"a": 1}, {"b": 9}),
        ({"rename": {"/a": "/a"}}, {"a": 1}, {"a": 1}),
    ],
)
def test_steps_do_what_the_page_says(steps, before, after):
    assert transformed(deepcopy(before), **steps) == after


def test_a_value_that_is_set_is_copied():
    steps = _steps({"inbound": {"set": {"/a": []}}}, "inbound")
    first = apply_steps(steps, {})
    first["a"].append(1)
    assert apply_steps(steps, {}) == {"a": []}


LEVELS = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "*", ""]), min_size=1, max_size=4).map(
    lambda levels: "".join(f"/{level}" for level in levels)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "-", ""]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    JSON,
    st.lists(LEVELS, max_size=3),
    st.dictionaries(LEVELS, JSON, max_size=3),
    LEVELS.filter(lambda at: "*" not in at),
)
def test_a_transformation_never_fails_on_json(value, remove, set_, rename):
    before = json.dumps(value)
    after = transformed(json.loads(before), remove=remove, set=set_, rename={rename: "/b/0"})
    assert dump(after)
