"""Every label that traffic can be counted under has its words."""

import re
from pathlib import Path

import pytest
from django.conf import settings

from analytics import words
from gateway.protocol import Protocol
from gateway.refusals import ErrorClass, Reason

GATEWAY = Path(settings.BASE_DIR) / "gateway"
CAUSES = sorted(
    {
        cause
        for path in GATEWAY.rglob("*.py")
        if "tests" not in path.parts
        for cause in re.findall(r'cause(?:: str = |=)"([a-z-]+)"', path.read_text())
    }
)


def test_there_are_causes_to_look_at():
    assert len(CAUSES) > 20


@pytest.mark.parametrize("outcome", [*CAUSES, *(reason.value for reason in Reason), "upstream-error"])
def test_every_outcome_has_words_and_a_place_on_the_page_of_refusals(outcome):
    body, slug = words.OUTCOMES[outcome]
    assert body != outcome
    assert slug in set(Reason)


def test_every_cause_that_has_words_exists():
    assert set(words.CAUSES) <= {*CAUSES, "upstream-error"}


def test_every_error_class_has_words():
    assert {error_class.value for error_class in ErrorClass} <= set(words.ERROR_CLASSES)


def test_every_protocol_has_a_name():
    assert {protocol.value for protocol in Protocol} == set(words.PROTOCOLS)


def test_what_is_not_known_is_said_as_it_is():
    assert words.outcome_text("brand-new") == "brand-new"
    assert words.end_text("brand_new") == "brand_new"
