from importlib import import_module

import pytest
from django.core.exceptions import ValidationError

from audit.models import Change
from consumers.limits import BYTES_IN_DEFAULT, clean_limits
from consumers.models import Consumer, Tier
from consumers.scopes import every_scope
from consumers.services import (
    create_consumer,
    create_tier,
    delete_consumer,
    delete_tier,
    update_consumer,
    update_tier,
)
from keys.services import issue_key

pytestmark = pytest.mark.django_db

LIMIT = {"metric": "requests", "amount": 10, "per": 60}


@pytest.fixture
def tier():
    return create_tier(name="gold", limits=[LIMIT], by="ann")


@pytest.fixture
def consumer(tier):
    return create_consumer(name="acme", tier=tier, by="ann")


def latest():
    return Change.objects.first()


def test_a_new_tier_is_recorded_with_its_actor(tier):
    change = latest()
    assert (change.actor, change.kind, change.name, change.action) == ("ann", "tier", "gold", "created")
    assert change.before is None
    assert change.after == {"name": "gold", "description": "", "limits": tier.limits, "scopes": every_scope()}


def test_a_change_is_recorded_with_what_was_before(consumer):
    update_consumer(consumer, is_active=False, email="a@b.example", by="bob")
    change = latest()
    assert (change.actor, change.action) == ("bob", "updated")
    assert (change.before["is_active"], change.after["is_active"]) == (True, False)
    assert (change.before["email"], change.after["email"]) == ("", "a@b.example")


def test_fields_that_are_not_published_are_recorded(tier, consumer):
    update_tier(tier, description="For those who pay.", by="bob")
    update_consumer(consumer, display_name="Acme Ltd", by="bob")
    described, named = Change.objects.order_by("-id")[:2][::-1]
    assert described.after["description"] == "For those who pay."
    assert named.after["display_name"] == "Acme Ltd"


def test_the_scopes_of_a_tier_default_to_all():
    assert create_tier(name="free", by="ann").scopes == ["call:*", "publish:*", "subscribe:*", "jobs:*"]
    assert create_tier(name="none", scopes=[], by="ann").scopes == []


def test_the_scopes_of_a_tier_can_be_changed(tier):
    update_tier(tier, scopes=["call:quotes", "call:quotes", "subscribe:*"], by="bob")
    assert Tier.objects.get().scopes == ["call:quotes", "subscribe:*"]
    assert latest().after["scopes"] == ["call:quotes", "subscribe:*"]


@pytest.mark.parametrize("scopes", ["call:*", [1], ["write:*"], ["call:"], ["call:a b"], {}, ["call:a"] * 101])
def test_an_invalid_scope_is_refused_with_the_fields_name(tier, scopes):
    with pytest.raises(ValidationError) as caught:
        update_tier(tier, scopes=scopes, by="bob")
    assert list(caught.value.message_dict) == ["scopes"]


def test_a_change_that_changes_nothing_is_not_recorded(tier):
    count = Change.objects.count()
    update_tier(tier, limits=[LIMIT], by="bob")
    assert Change.objects.count() == count


def test_concurrent_changes_of_other_fields_are_kept_and_recorded(consumer):
    mine, theirs = Consumer.objects.get(), Consumer.objects.get()
    update_consumer(theirs, metadata={"plan": "a"}, by="bob")
    update_consumer(mine, is_active=False, by="ann")
    kept = Consumer.objects.get()
    assert (kept.metadata, kept.is_active) == ({"plan": "a"}, False)
    assert latest().after["metadata"] == {"plan": "a"}


def test_changing_a_deleted_row_is_refused(consumer):
    stale = Consumer.objects.get()
    delete_consumer(consumer, by="bob")
    with pytest.raises(ValidationError, match="was deleted meanwhile"):
        update_consumer(stale, is_active=False, by="ann")
    with pytest.raises(ValidationError, match="was deleted meanwhile"):
        delete_consumer(stale, by="ann")


def test_an_error_leaves_neither_row_nor_record(tier):
    count = Change.objects.count()
    for faulty in ({"limits": [LIMIT | {"amount": 0}]}, {"name": "blue"}, {"color": "red"}):
        with pytest.raises(ValidationError):
            update_tier(tier, by="bob", **faulty)
    assert Tier.objects.get().limits == tier.limits
    assert Change.objects.count() == count


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "ä", "a" * 101, "a\n", "a\x00"])
def test_a_name_is_plain(name):
    with pytest.raises(ValidationError) as fault:
        create_tier(name=name, by="ann")
    assert list(fault.value.message_dict) == ["name"]


def test_a_name_is_unique(tier, consumer):
    with pytest.raises(ValidationError) as fault:
        create_tier(name="gold", by="ann")
    assert list(fault.value.message_dict) == ["name"]
    with pytest.raises(ValidationError) as fault:
        create_consumer(name="acme", tier=tier, by="ann")
    assert list(fault.value.message_dict) == ["name"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"display_name": "x" * 201}, "display_name"),
        ({"display_name": "a\x00b"}, "display_name"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {str(n): n for n in range(51)}}, "metadata"),
        ({"metadata": {"a": "\x00"}}, "metadata"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
        ({"metadata": {"a": "x" * 300_000}}, "metadata"),
        ({"limits": "none"}, "limits"),
    ],
)
def test_an_invalid_consumer_is_refused_by_field(tier, fields, field):
    with pytest.raises(ValidationError) as fault:
        create_consumer(name="acme", tier=tier, by="ann", **fields)
    assert list(fault.value.message_dict) == [field]
    assert not Consumer.objects.exists()


def test_metadata_nested_too_deep_is_refused(tier):
    deep = "end"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValidationError) as fault:
        create_consumer(name="acme", tier=tier, metadata={"a": deep}, by="ann")
    assert list(fault.value.message_dict) == ["metadata"]


def test_a_tier_in_use_is_not_deleted(tier, consumer):
    with pytest.raises(ValidationError, match="gold is still used by consumer acme"):
        delete_tier(tier, by="ann")
    delete_consumer(consumer, by="ann")
    delete_tier(tier, by="ann")
    assert (latest().kind, latest().action) == ("tier", "deleted")


def test_a_consumer_is_deleted_with_its_keys_each_recorded(consumer):
    ids = {issue_key(consumer=consumer, by="ann")[0].id for _ in range(2)}
    delete_consumer(consumer, by="bob")
    gone = Change.objects.filter(action="deleted")
    assert {change.name for change in gone.filter(kind="key")} == ids
    assert gone.first().kind == "consumer"
    assert all(change.after is None and change.actor == "bob" for change in gone)


def test_a_list_with_tiers_takes_one_query(consumer, django_assert_num_queries):
    create_consumer(name="other", tier=consumer.tier, by="ann")
    with django_assert_num_queries(1):
        assert {found.representation()["tier"] for found in Consumer.objects.with_tier()} == {"gold"}
    with django_assert_num_queries(1):
        assert [found.consumer_count for found in Tier.objects.with_counts()] == [2]


def test_every_tier_limits_what_its_consumers_send():
    added = next(iter(clean_limits([BYTES_IN_DEFAULT])))
    tier = create_tier(name="plain", by="ann")
    assert tier.limits == [added]
    update_tier(tier, limits=[LIMIT], by="ann")
    assert tier.limits == [*clean_limits([LIMIT]), added]
    own = clean_limits([{"metric": "bytes_in", "amount": 5, "per": 1}])
    update_tier(tier, limits=own, by="ann")
    assert tier.limits == own


def test_the_migration_of_tiers_has_the_same_default():
    migration = import_module("consumers.migrations.0003_tier_bytes_in")
    assert clean_limits([BYTES_IN_DEFAULT]) == [migration.BYTES_IN_DEFAULT]
