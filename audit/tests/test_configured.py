"""The three forms of a row follow from the lists of fields that its model declares."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from audit.configured import rfc3339
from consumers.models import Consumer, Tier
from keys.models import Key

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def key():
    tier = Tier(name="gold")
    return Key(id="k2", consumer=Consumer(name="acme", tier=tier), expires_at=AT, created_at=AT, rotated_from_id="k1")


def test_instants_are_seconds_in_documents_and_text_in_representations(key):
    assert key.document()["expires_at"] == key.recorded()["expires_at"] == AT.timestamp()
    assert key.representation()["expires_at"] == "2026-01-31T12:00:00Z"
    assert key.document()["revoked_at"] is None


def test_another_row_is_named_by_its_identity(key):
    assert key.document()["consumer"] == "acme"
    assert key.recorded()["rotated_from"] == "k1"


def test_a_record_is_the_document_and_what_only_the_control_plane_needs(key):
    assert key.recorded() == key.document() | {"name": "", "revoked_reason": "", "rotated_from": "k1"}


def test_a_digest_is_published_and_never_shown(key):
    assert "digest" in key.document()
    assert "digest" not in key.representation()


def test_instants_are_formatted_in_utc():
    assert rfc3339(AT.astimezone(timezone(timedelta(hours=2)))) == "2026-01-31T12:00:00Z"
