"""Documents keep the order of their members on every database: in tables, the audit log, snapshots and rollbacks."""

import json
import random

import pytest
from django.apps import apps
from django.core.exceptions import FieldError
from django.db import connection, models
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from audit import relay
from audit.models import Change
from audit.ordered_json import OrderedJSONField, is_same_record
from audit.services import configuration_as_of, diff_between
from audit.snapshot_documents import all_documents, snapshot_document
from configuration.rollback import roll_back
from consumers.services import create_consumer, create_tier, update_consumer
from events.models import Channel, Schema, SchemaVersion, Subject
from events.services import create_channel, update_channel
from keys.models import Key

pytestmark = pytest.mark.django_db

SCHEMA = {
    "type": "object",
    "zeta": {"b": 1, "a": 2.0},
    "a": [{"y": None, "x": True}],
    "properties": {"zz": {}, "b": {}},
}
TURNED = dict(reversed(SCHEMA.items()))
TELEMETRY = {("ConnectionRecord", "subscriptions")}
"""Written by the projector alone, which writes the members in one order, and read by name."""


def text(value):
    return json.dumps(value)


def a_document(dice, depth=3):
    """Return random JSON whose members are in random order."""
    kinds = [lambda: dice.choice([None, True, False, "", "é\u2028", dice.randrange(9), 1.5]), dict, list]
    value = dice.choice(kinds if depth else kinds[:1])()
    if isinstance(value, dict):
        names = dice.sample(["a", "b", "bb", "z", "Z", "10", "9", "ü", ""], dice.randrange(6))
        return {name: a_document(dice, depth - 1) for name in names}
    return [a_document(dice, depth - 1) for _ in range(dice.randrange(4))] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(30))
def test_any_document_comes_back_with_its_members_in_order(seed):
    documents = {str(number): a_document(random.Random(f"{seed}{number}")) for number in range(5)}
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), metadata=documents, by="ann")
    turned = dict(reversed(documents.items()))
    consumer.refresh_from_db()
    assert text(consumer.metadata) == text(documents)
    update_consumer(consumer, metadata=turned, by="ann")
    consumer.refresh_from_db()
    assert text(consumer.metadata) == text(turned)
    (latest, first) = Change.objects.filter(kind="consumer")
    assert text(first.after["metadata"]) == text(latest.before["metadata"]) == text(documents)
    assert text(latest.after["metadata"]) == text(turned)


def test_every_json_column_keeps_the_order_of_members():
    others = {
        (model.__name__, field.name)
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, models.JSONField) and not isinstance(field, OrderedJSONField)
    }
    assert others == TELEMETRY


def test_another_order_alone_is_a_change_that_is_recorded_relayed_and_rolled_back():
    channel = create_channel(address="a", schema=SCHEMA, by="ann")
    began = timezone.now()
    update_channel(channel, schema=TURNED, by="ann")
    change = Change.objects.first()
    assert (change.action, text(change.before["schema"]), text(change.after["schema"])) == (
        "updated", text(SCHEMA), text(TURNED),
    )  # fmt: skip
    relayed = relay.encode(snapshot_document("channel", change.after))
    assert relayed == relay.encode(all_documents()["channel", "a"])
    assert json.dumps(TURNED, separators=(",", ":")).encode() in relayed
    assert [text(after) for _, _, after in diff_between(began, timezone.now()).entries[0].fields()] == [text(TURNED)]
    assert text(configuration_as_of(began)["channel", "a"]["schema"]) == text(SCHEMA)
    assert [entry.name for entry in roll_back(began, by="ann").entries] == ["a"]
    assert text(Channel.objects.get().schema) == text(SCHEMA)
    assert not roll_back(began, by="ann")


def test_the_same_document_is_no_change():
    channel = create_channel(address="a", schema=SCHEMA, by="ann")
    update_channel(channel, schema=json.loads(json.dumps(SCHEMA)), by="ann")
    assert Change.objects.count() == 1
    assert is_same_record({"a": 1.0, "b": {}}, {"b": {}, "a": 1})
    assert not is_same_record({"a": {"const": 1}}, {"a": {"const": True}})


def test_columns_are_queried_alike_on_every_database():
    Schema.objects.bulk_create(
        [
            Schema(type="JSON", text="{}", references=references, extra={"z": 1, "a": 2}, digest=str(number))
            for number, references in enumerate(([], [{"name": "n", "subject": "s", "version": 1}]))
        ]
    )
    empty, other = Schema.objects.order_by("digest")
    assert text(empty.extra) == '{"z": 1, "a": 2}'
    assert Schema.objects.exclude(references=[]).get() == other
    assert Schema.objects.filter(extra={"z": 1, "a": 2}).distinct().count() == 2
    assert not Schema.objects.filter(extra={"a": 2, "z": 1}).exists()
    empty.extra = {"y": 1, "b": {"d": 1, "c": 2}}
    Schema.objects.bulk_update([empty], ["extra"])
    empty.refresh_from_db()
    assert text(empty.extra) == '{"y": 1, "b": {"d": 1, "c": 2}}'
    subject = Subject.objects.create(name="s", latest=None)
    SchemaVersion.objects.create(subject=subject, version=1, schema=empty)
    assert Subject.objects.filter(latest__isnull=True, versions__isnull=False).distinct().get() == subject
    assert Subject.objects.annotate(count=models.Count("versions")).get().count == 1


def test_members_are_not_queried():
    with pytest.raises(FieldError, match="Unsupported lookup"):
        Key.objects.filter(metadata__team="a").exists()


def columns():
    """Return the columns of channels as the database describes them, in any order."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            return cursor.execute("SELECT sql FROM sqlite_master WHERE name = 'events_channel'").fetchall()
        cursor.execute(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
            "WHERE table_name = 'events_channel' ORDER BY column_name"
        )
        return cursor.fetchall()


@pytest.mark.django_db(transaction=True)
def test_rows_of_an_earlier_version_are_kept_by_the_migration():
    before = columns()
    create_channel(address="a", schema=SCHEMA, retention={"max_events": 3}, by="ann")
    create_channel(address="b", by="ann")
    executor = MigrationExecutor(connection)
    executor.migrate([("events", "0012_channel_subject_prefix")])
    assert (columns() == before) is (connection.vendor == "sqlite")
    executor.loader.build_graph()
    executor.migrate(executor.loader.graph.leaf_nodes())
    assert columns() == before
    first, second = Channel.objects.order_by("address")
    assert (first.schema, first.retention, second.schema, second.retention) == (SCHEMA, {"max_events": 3}, None, {})
    update_channel(first, schema=TURNED, by="ann")
    assert text(Channel.objects.get(address="a").schema) == text(TURNED)
