from datetime import UTC, datetime

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from audit import recording
from audit.models import Change
from audit.services import record
from audit.snapshot_documents import KINDS, all_documents, snapshot_document
from consumers.models import Tier
from consumers.services import create_consumer, create_tier
from events.connectors import create_connector
from events.registry import register
from events.registry_schemas import parse_submitted
from events.services import create_channel
from events.subscriptions import create_subscription
from gateway.snapshot.documents import READERS
from keys.issuers import create_issuer
from keys.services import issue_key
from routes.services import create_route

pytestmark = pytest.mark.django_db


@pytest.fixture
def everything():
    """One row of each kind, by kind."""
    tier = create_tier(name="gold", description="d", limits=[{"metric": "requests", "amount": 1, "per": 1}], by="ann")
    consumer = create_consumer(name="acme", tier=tier, email="a@b.example", display_name="Acme", by="ann")
    key, _ = issue_key(
        consumer=consumer, name="ci", allowed_ips=["::1"], expires_at=datetime(2999, 1, 1, tzinfo=UTC), by="ann"
    )
    channel = create_channel(address="c/{x}", schema={"type": "object"}, by="ann")
    subscription, _ = create_subscription(consumer=consumer, type="pull", channel="c/{x}", position=7, by="ann")
    return {
        "tier": tier,
        "consumer": consumer,
        "key": key,
        "route": create_route(name="r", path="/r", handler={"type": "channel", "channel": "c"}, by="ann"),
        "channel": channel,
        "schema": register(
            "s", parse_submitted({"schema": '{"type": "object"}', "schemaType": "JSON"}), by="ann"
        ).subject,
        "subscription": subscription,
        "connector": create_connector(
            name="k",
            type="nats",
            direction="sink",
            channel="c/{x}",
            options={"url": "nats://n", "subject": "s"},
            by="ann",
        ),
        "issuer": create_issuer(name="i", issuer="https://i", jwks_url="https://i.example", audience="a", by="ann"),
    }


def test_every_kind_is_in_the_snapshot_as_its_row_says(everything):
    assert set(everything) == set(KINDS)
    assert {kind: row.document() for kind, row in everything.items()} == {
        kind: document for (kind, _), document in all_documents().items()
    }


def test_the_log_and_the_rows_give_the_same_documents(everything):
    for kind, row in everything.items():
        recorded = Change.objects.get(kind=kind).after
        assert snapshot_document(kind, recorded) == row.document()


def test_the_data_plane_can_read_every_document(everything):
    for (kind, _), document in all_documents().items():
        if kind in READERS:
            READERS[kind](document)


def test_reading_all_documents_takes_a_query_a_kind(everything, django_assert_num_queries):
    with django_assert_num_queries(len(KINDS)):
        all_documents()


def test_a_change_is_immutable(everything):
    change = Change.objects.first()
    change.actor = "mallory"
    with pytest.raises(TypeError):
        change.save()
    with pytest.raises(TypeError):
        change.delete()
    with pytest.raises(TypeError):
        Change.objects.all().delete()
    assert Change.objects.first().actor == "ann"


@pytest.mark.django_db(transaction=True)
def test_a_record_needs_the_transaction_of_what_it_records():
    with pytest.raises(AssertionError):
        record("tier", "gold", before=None, after={}, by="ann")


@pytest.mark.django_db(transaction=True)
def test_row_and_record_are_undone_together():
    with transaction.atomic():
        create_tier(name="gold", by="ann")
        transaction.set_rollback(True)
    assert not Tier.objects.exists()
    assert not Change.objects.exists()


def test_a_name_that_another_transaction_took_is_an_error_of_its_field(monkeypatch):
    create_tier(name="gold", by="ann")
    real, calls = Tier.full_clean, []

    def blind_at_first(row, *arguments, **named):
        # What a transaction sees that began before the other one ended.
        calls.append(row)
        return None if len(calls) == 1 else real(row, *arguments, **named)

    monkeypatch.setattr(Tier, "full_clean", blind_at_first)
    with pytest.raises(ValidationError) as fault:
        create_tier(name="gold", by="bob")
    assert list(fault.value.message_dict) == ["name"]
    assert Change.objects.count() == 1


def test_another_integrity_error_is_an_internal_error(monkeypatch):
    monkeypatch.setattr(Tier, "full_clean", lambda row: None)
    monkeypatch.setattr(recording, "require_storable", lambda row: None)
    with pytest.raises(IntegrityError):
        create_tier(name=None, by="bob")
