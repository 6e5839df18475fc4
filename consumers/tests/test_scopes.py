"""Scopes as people write them."""

import pytest
from django.core.exceptions import ValidationError

from consumers.scopes import clean_scopes


@pytest.mark.parametrize(
    "scope", ["publish:a?conflate=1s", "subscribe:a?conflate=", "subscribe:a?conflate=soon", "subscribe:?conflate=1s"]
)
def test_an_invalid_interval_is_refused(scope):
    with pytest.raises(ValidationError) as refused:
        clean_scopes([scope])
    assert "scopes" in refused.value.message_dict


def test_a_right_to_subscribe_may_name_an_interval():
    assert clean_scopes(["subscribe:prices/*?conflate=1s"]) == ["subscribe:prices/*?conflate=1s"]


@pytest.mark.parametrize(
    "scope",
    ["subscribe:#", "subscribe:a/#", "publish:a/+/b", "subscribe:+/a", "subscribe:a/+?conflate=1s", "publish:*/#"],
)
def test_a_wildcard_of_readers_is_refused_as_it_would_allow_nothing(scope):
    with pytest.raises(ValidationError) as refused:
        clean_scopes([scope])
    assert "{rest...}" in refused.value.message_dict["scopes"][0]


def test_plus_and_number_sign_are_characters_beside_others():
    scopes = ["subscribe:a+/#b", "publish:a#/b", "call:api#tools/call:x", "call:+", "jobs:#"]
    assert clean_scopes(scopes) == scopes
