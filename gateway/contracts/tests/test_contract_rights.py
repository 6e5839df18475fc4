import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contracts.rights import may, may_anything, meet
from gateway.identity.rights import allowed
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb


def caller(*scopes):
    return Principal(consumer="acme", key="k", tier="free", scopes=scopes)


@pytest.mark.parametrize(
    ("scope", "template", "meets"),
    [
        ("*", "a/{id}", True),
        ("publish:*", "a/{id}/b", True),
        ("publish:a/{x}/b", "a/{id}/b", True),
        ("publish:a/kitchen/b", "a/{id}/b", True),
        ("publish:a/kitchen", "a/{id}/b", False),
        ("publish:a/*", "a/{id}/b", True),
        ("publish:*/b", "a/{id}/b", True),
        ("publish:*/c", "a/{id}/b", False),
        ("publish:*/c", "a/{id}", True),
        ("publish:a/{x}", "a/{id}/b", False),
        ("publish:a", "a", True),
        ("publish:a", "ab", False),
        ("publish:ab", "a", False),
        ("subscribe:*", "a", False),
        ("publish:{x}", "a/b", False),
        ("publish:a/{x}", "a/", False),
        ("publish:a/k*", "a/{id}", True),
        ("publish:a/*k*z", "a/{id}", True),
        ("publish:a/b/c", "a/{path...}", True),
        ("publish:a/{x}", "a/{path...}", True),
        ("publish:b/{x}", "a/{path...}", False),
        ("publish:a/{path...}", "a/{id}/b", True),
        ("publish:a/{path...}", "{id}/b/c", True),
        ("publish:a/{path...}", "b/{id}", False),
        ("publish:my room/{path...}", "my room/{x}/t", True),
    ],
)
def test_a_template_is_seen_where_some_address_of_it_may_be_used(scope, template, meets):
    assert may(caller(scope), Verb.PUBLISH, template) is meets


def test_a_template_is_hidden_where_the_tier_allows_no_address_of_it():
    for ceiling, seen in (
        (("publish:*",), True),
        (("publish:b/*", "publish:a/k"), True),
        (("subscribe:*",), False),
        ((), False),
    ):
        assert may(replace(caller("publish:a/*"), ceiling=ceiling), Verb.PUBLISH, "a/{id}") is seen


LEVELS = st.text("ab", min_size=1, max_size=2)
ADDRESSES = st.lists(LEVELS, min_size=1, max_size=3).map("/".join)
TEMPLATES = st.tuples(
    st.lists(st.one_of(LEVELS, st.just("{p}")), min_size=1, max_size=3).map("/".join), st.sampled_from(["", "/{r...}"])
).map("".join)
SCOPES = st.lists(
    st.one_of(LEVELS, st.just("*"), st.just("{p}"), st.just("/"), st.just("/{p}/"), st.just("/{r...}")),
    min_size=1,
    max_size=5,
).map("".join)


@given(SCOPES, TEMPLATES, ADDRESSES)
def test_no_address_that_may_be_used_is_hidden(scope, template, address):
    patterns = {"{p}": "[^/]*", "{r...}": ".*"}
    pattern = "/".join(patterns.get(level) or re.escape(level) for level in template.split("/"))
    if re.fullmatch(pattern, address) and allowed(caller(f"publish:{scope}"), Right(Verb.PUBLISH, address)):
        assert may(caller(f"publish:{scope}"), Verb.PUBLISH, template)


@given(SCOPES, ADDRESSES)
def test_for_a_concrete_address_it_is_the_same_as_being_allowed(scope, address):
    expected = allowed(caller(f"publish:{scope}"), Right(Verb.PUBLISH, address))
    assert meet(f"publish:{scope}", f"publish:{address}") is expected


def test_many_wildcards_take_no_long_time():
    assert not meet("publish:" + "*a" * 100, "publish:" + "b" * 200)


def test_a_conflated_scope_covers_the_same_addresses():
    assert may(caller("subscribe:sensors/7?conflate=1s"), Verb.SUBSCRIBE, "sensors/{id}")


@pytest.mark.parametrize(
    ("scopes", "ceiling", "has_any"),
    [
        ((), None, False),
        ((), ("*",), False),
        (("publish:a",), None, True),
        (("publish:a",), (), False),
        (("publish:a", "subscribe:b/{id}"), ("subscribe:b/*",), True),
        (("publish:a",), ("subscribe:*", "publish:b"), False),
        (("subscribe:a?conflate=1s",), ("subscribe:a?conflate=2s",), True),
    ],
)
def test_a_caller_has_a_right_where_its_scopes_meet_those_of_its_tier(scopes, ceiling, has_any):
    assert may_anything(replace(caller(*scopes), ceiling=ceiling)) is has_any
