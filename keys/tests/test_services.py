from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError

from audit.models import Change
from consumers.services import create_consumer, create_tier, update_consumer
from gateway.credentials.api_keys import digest, parse
from keys.models import Key
from keys.services import issue_key, leaked_key, revoke_key, rotate_key, touch, update_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def consumer():
    return create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")


def issue(consumer, **fields):
    return issue_key(consumer=consumer, by="ann", **fields)


def test_a_key_is_shown_once_and_stored_only_as_a_digest(consumer):
    key, text = issue(consumer, name="ci", scopes=["publish:*"])
    assert parse(text) == key.id
    assert Key.objects.get().digest == digest(text, settings.KEY_PEPPER.encode())
    secret = text.split("_")[2]
    assert not any(secret in str(value) for value in Key.objects.values().get().values())
    assert secret not in str(Change.objects.filter(kind="key").values().get())


def test_a_key_has_a_document_and_a_representation_without_digest(consumer):
    ends_at = datetime(2999, 1, 1, tzinfo=UTC)
    key, _ = issue(consumer, name="ci", scopes=["call:a"], expires_at=ends_at, allowed_ips=["10.1.2.3/8"])
    document = Key.objects.get().document()
    assert document == {
        "id": key.id,
        "consumer": "acme",
        "digest": key.digest,
        "scopes": ["call:a"],
        "expires_at": ends_at.timestamp(),
        "revoked_at": None,
        "allowed_ips": ["10.0.0.0/8"],
        "allowed_origins": [],
        "limits": [],
        "metadata": {},
    }
    shown = key.representation()
    assert "digest" not in shown
    assert shown["expires_at"] == "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://APP.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(consumer, given, kept):
    assert issue(consumer, allowed_origins=[given])[0].allowed_origins == [kept]


@pytest.mark.parametrize("scope", ["*", "call:route", "publish:*", "subscribe:sensors/{id}/temperature", "jobs:reports",
                                   "publish:a/*", "call:mcp#tools/call:get_weather", "publish:ümlaut"])  # fmt: skip
def test_a_scope_names_a_verb_and_what_it_is_for(consumer, scope):
    assert issue(consumer, scopes=[scope, scope])[0].scopes == [scope]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": ["publish"]}, "scopes"),
        ({"scopes": ["publish:"]}, "scopes"),
        ({"scopes": ["delete:a"]}, "scopes"),
        ({"scopes": ["publish:a\n"]}, "scopes"),
        ({"scopes": [1]}, "scopes"),
        ({"scopes": "publish:a"}, "scopes"),
        ({"scopes": ["call:a"] * 101}, "scopes"),
        ({"allowed_ips": ["10.0.0.256"]}, "allowed_ips"),
        ({"allowed_ips": ["localhost"]}, "allowed_ips"),
        ({"allowed_origins": ["app.example"]}, "allowed_origins"),
        ({"allowed_origins": ["https://app.example/"]}, "allowed_origins"),
        ({"allowed_origins": ["https://[::1"]}, "allowed_origins"),
        ({"allowed_origins": ["null"]}, "allowed_origins"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ({"expires_at": "10000-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": 5}, "expires_at"),
        ({"limits": [{"metric": "requests", "amount": 0, "per": 1}]}, "limits[0].amount"),
        ({"metadata": "x"}, "metadata"),
        ({"name": "x" * 101}, "name"),
    ],
)
def test_an_invalid_key_is_refused_by_field(consumer, fields, field):
    with pytest.raises(ValidationError) as fault:
        issue(consumer, **fields)
    assert list(fault.value.message_dict) == [field]
    assert not Key.objects.exists()
    assert not Change.objects.filter(kind="key").exists()


def test_a_revoked_key_stays_in_the_snapshot_with_its_instant(consumer):
    key, _ = issue(consumer)
    revoke_key(key, reason="lost", by="bob")
    change = Change.objects.first()
    assert change.action == "updated"
    assert (change.actor, change.note, change.after["revoked_reason"]) == ("bob", "lost", "lost")
    assert Key.objects.get().document()["revoked_at"] == pytest.approx(change.at.timestamp(), abs=60)


def test_revoking_twice_keeps_the_first_reason_also_from_a_stale_row(consumer):
    key, _ = issue(consumer)
    stale = Key.objects.get()
    revoke_key(key, reason="lost", by="bob")
    count = Change.objects.count()
    assert revoke_key(stale, reason="again", by="bob").revoked_reason == "lost"
    assert Change.objects.count() == count


def test_a_rotated_key_overlaps_with_the_new_one(consumer):
    old, old_text = issue(consumer, name="ci", scopes=["call:a"], allowed_ips=["10.0.0.0/8"])
    before = datetime.now(UTC)
    new, new_text = rotate_key(old, overlap_s=3600, by="bob")
    assert new_text != old_text
    assert (new.rotated_from_id, new.name, new.scopes, new.allowed_ips) == (old.id, "ci", ["call:a"], ["10.0.0.0/8"])
    old.refresh_from_db()
    assert timedelta() <= old.expires_at - before - timedelta(hours=1) < timedelta(minutes=1)
    assert old.revoked_at is None
    assert {change.name for change in Change.objects.filter(actor="bob")} == {old.id, new.id}


def test_a_rotation_without_overlap_revokes(consumer):
    old, _ = issue(consumer)
    rotate_key(old, overlap_s=0, by="bob")
    assert Key.objects.get(id=old.id).revoked_reason == "rotated"


def test_an_overlap_never_lengthens_a_key(consumer):
    soon = datetime.now(UTC) + timedelta(minutes=5)
    old, _ = issue(consumer, expires_at=soon)
    new, _ = rotate_key(old, overlap_s=24 * 3600, by="bob")
    assert Key.objects.get(id=old.id).expires_at == soon
    assert new.expires_at == soon


@pytest.mark.parametrize("overlap_s", [-1, 1.5, "3600", True, None, 10**9])
def test_an_overlap_is_a_bounded_number_of_seconds(consumer, overlap_s):
    key, _ = issue(consumer)
    with pytest.raises(ValidationError) as fault:
        rotate_key(key, overlap_s=overlap_s, by="bob")
    assert list(fault.value.message_dict) == ["overlap_s"]
    assert Key.objects.count() == 1


def test_a_revoked_or_expired_key_is_not_rotated(consumer):
    revoked, _ = issue(consumer)
    stale = Key.objects.get()
    revoke_key(revoked, by="bob")
    expired, _ = issue(consumer)
    update_key(expired, expires_at=datetime(2020, 1, 1, tzinfo=UTC), by="bob")
    for key in (stale, expired):
        with pytest.raises(ValidationError, match="cannot be rotated"):
            rotate_key(key, by="bob")
    assert Key.objects.count() == 2


def test_a_leaked_key_is_revoked_and_a_forged_one_is_not(consumer):
    key, text = issue(consumer)
    other = issue(consumer)[1]
    forged = f"apim_{key.id}_{other.split('_')[2]}"
    assert leaked_key("nonsense", by="bob") is None
    assert leaked_key(forged, by="bob") is None
    assert Key.objects.filter(revoked_at=None).count() == 2
    assert leaked_key(f" {text}\n", by="bob") == key
    assert Key.objects.get(id=key.id).revoked_reason == "leaked: reported in public"
    assert Change.objects.first().note == f"leaked: reported in public; its owner is {consumer.name}"
    update_consumer(consumer, email="them@acme.example", by="ann")
    leaked_key(issue_key(consumer=consumer, by="ann")[1], by="bob")
    assert Change.objects.first().note.endswith(f"its owner is {consumer.name} <them@acme.example>")


def test_only_some_fields_of_a_key_can_be_changed(consumer):
    key, _ = issue(consumer)
    update_key(key, scopes=["call:b"], metadata={"a": 1}, expires_at="2999-01-01T00:00:00Z", by="bob")
    key = Key.objects.get()
    assert (key.scopes, key.metadata, key.expires_at.year) == (["call:b"], {"a": 1}, 2999)
    for field in ("digest", "id", "consumer", "revoked_at", "last_used_at", "created_at"):
        with pytest.raises(ValidationError) as fault:
            update_key(key, by="bob", **{field: None})
        assert list(fault.value.message_dict) == [field]


def test_last_use_only_advances_and_is_not_recorded(consumer):
    key, _ = issue(consumer)
    count = Change.objects.count()
    late, early = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    touch({key.id: late, "unknown": late})
    touch({key.id: early})
    assert Key.objects.get().last_used_at == late
    assert Change.objects.count() == count


def test_usable_keys_are_neither_revoked_nor_expired(consumer):
    now = datetime.now(UTC)
    good, _ = issue(consumer, expires_at=now + timedelta(days=1))
    forever, _ = issue(consumer)
    revoke_key(issue(consumer)[0], by="bob")
    update_key(issue(consumer)[0], expires_at=now - timedelta(seconds=1), by="bob")
    assert set(Key.objects.usable(now)) == {good, forever}


def test_a_list_of_keys_takes_one_query(consumer, django_assert_num_queries):
    issue(consumer)
    issue(consumer)
    with django_assert_num_queries(1):
        assert [key.representation()["consumer"] for key in Key.objects.with_consumer()] == ["acme", "acme"]
