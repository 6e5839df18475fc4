"""The registry's schemas in a document: what is exported is applied elsewhere, and exported the same."""

import contextlib
import json
import random

import pytest

from configuration import registry_section
from configuration.apply import apply_text
from configuration.export import export_text
from configuration.importing import import_document
from configuration.tests.test_registered_schemas import USER, exported, register
from configuration.yaml_documents import DocumentError, parse
from events import registry
from events.models import Channel, Schema, SchemaVersion, Subject
from events.registry_schemas import RegistryError
from events.services import create_channel

pytestmark = pytest.mark.django_db

LINE = {"type": "object", "zeta": 1, "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}


def forget():
    Channel.objects.all().delete()
    for model in (SchemaVersion, Schema, Subject):
        model.objects.all().delete()


def ids():
    return {(row.subject.name, row.version): row.schema_id for row in SchemaVersion.objects.select_related("subject")}


def test_schemas_are_exported_with_what_they_reference_and_come_back():
    registry.configure("*", compatibility="NONE", by="ann")
    register("line", {"type": "object"})
    register("line", LINE)
    references = [{"name": "line.json", "subject": "line", "version": 2}]
    register("a-orders", {"properties": {"lines": {"items": {"$ref": "line.json"}}}}, references=references)
    register("users", USER, "AVRO")
    registry.configure("users", compatibility="FULL", mode="READONLY", by="ann")
    create_channel(address="orders", schema={"subject": "a-orders"}, by="ann")
    text = export_text()
    assert not apply_text(text, "same.yaml", by="ann")
    forget()
    apply_text(text, "other.yaml", by="ann")
    assert export_text() == text
    entries = [(entry["subject"], entry.get("version")) for entry in parse(text, "x").data["schemas"]]
    assert entries == [("*", None), ("line", 2), ("a-orders", 1), ("line", 1), ("users", 1)]
    assert registry.latest("line").value == LINE
    assert registry.latest_of("line")["version"] == 2


@pytest.mark.parametrize(("schema", "type_"), [(LINE, "JSON"), (USER, "AVRO")])
def test_an_export_survives_the_asyncapi_document(schema, type_):
    register("unused", {"title": "Takes the first id"})
    register("z-value", {"title": "Has a lower id, and a later address"})
    register("orders-value", schema, type_)
    registry.configure("orders-value", compatibility="FULL", mode="READONLY", by="ann")
    registry.hide(registry.live(subject := Subject.objects.get(name="unused")), subject, by="ann")
    registry.erase(subject.versions.all(), subject, by="ann")
    create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    create_channel(address="z", schema={"subject": "z-value"}, by="ann")
    create_channel(address="lines/{id}", schema=LINE, title="Lines", retention={"max_age_s": 5}, by="ann")
    text, document = export_text(), json.dumps(exported())
    forget()
    import_document(parse(document, "asyncapi.json"), by="ann")
    assert export_text() == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("schemas: 5", "schemas must be a list"),
        ("schemas: [5]", "a schema must be a mapping"),
        ("schemas: [{schema: {}}]", "a schema needs subject"),
        ("schemas: [{subject: a, scheme: {}}]", "unknown field scheme"),
        ("schemas: [{subject: a, type: 5}]", "type must be a string"),
        ("schemas: [{subject: a, type: XML, schema: {}}]", "schema a: schema: Invalid schema"),
        ("schemas: [{subject: a, compatibility: SOME}]", "compatibility must be one of NONE"),
        ("schemas: [{subject: a, mode: [1]}]", "mode must be one of READWRITE"),
        ("schemas: [{subject: a, schema: {}, version: -1}]", "version must be a positive whole number"),
        ("schemas: [{subject: a, schema: {}, version: 1, id: true}]", "id must be a positive whole number"),
        ("schemas: [{subject: a, schema: {}, text: '{}'}]", "as schema or as text, not as both"),
        ("schemas: [{subject: a, schema: {}, is_deleted: true}]", "a deleted version needs version"),
        ("schemas: [{subject: a, mode: READONLY}, {subject: a, mode: READWRITE}]", "another entry of a has READONLY"),
        ("schemas: [{subject: a, schema: {}, references: 5}]", "schema a: schema: Invalid schema"),
        ("schemas: [{subject: '*', schema: {}, version: 1}]", "stands for all subjects"),
    ],
)
def test_an_invalid_schema_is_refused_with_its_place(text, fault):
    with pytest.raises(DocumentError, match=fault) as refused:
        apply_text(text, "x.yaml", by="ann")
    assert str(refused.value).startswith("x.yaml:1:")
    assert not Subject.objects.exists()


HISTORY = [{"title": "First"}, {"title": "Second", "type": "object"}, {"title": "Third", "type": "string"}]


def a_history():
    """Leave a registry with versions that no level allows, deleted ones, and ids that others had before."""
    registry.configure("*", compatibility="NONE", by="ann")
    for schema in HISTORY:
        register("orders", schema)
        register("gone", schema)
    register("users", USER, "AVRO")
    orders, gone, users = (Subject.objects.get(name=name) for name in ("orders", "gone", "users"))
    registry.hide([registry.live(orders)[1]], orders, by="ann")
    registry.hide(registry.live(gone), gone, by="ann")
    registry.erase(gone.versions.filter(version=2), gone, by="ann")
    registry.hide(registry.live(users), users, by="ann")
    registry.erase(users.versions.all(), users, by="ann")
    metadata = {"properties": {"owner": "shop", "area": "b"}, "tags": {"z": ["1"], "a": []}}
    rules = {"domainRules": [{"name": "n", "kind": "CONDITION"}]}
    references = [{"name": "o.json", "subject": "orders", "version": 3}]
    register("tagged", {"$ref": "o.json"}, references=references, metadata=metadata, ruleSet=rules)
    registry.configure("*", compatibility="FULL", mode="READONLY", by="ann")
    registry.configure("orders", compatibility="BACKWARD_TRANSITIVE", by="ann")


def test_a_whole_history_comes_back_with_its_numbers_and_ids():
    a_history()
    text, before = export_text(), ids()
    states = {subject.name: subject.recorded() for subject in Subject.objects.all()}
    assert not apply_text(text, "same.yaml", by="ann")
    forget()
    foreseen = apply_text(text, "other.yaml", dry_run=True, by="ann")
    assert not Subject.objects.exists()
    assert apply_text(text, "other.yaml", by="ann").entries == foreseen.entries
    assert export_text() == text
    assert ids() == before
    assert {subject.name: subject.recorded() for subject in Subject.objects.all()} == states
    registry.configure("*", mode="", by="ann")
    row = register("new", {"title": "New"})
    assert row.schema_id > max(before.values())


def test_an_export_reads_the_registry_in_two_queries(django_assert_num_queries):
    a_history()
    with django_assert_num_queries(2):
        registry_section.exported()


def test_a_schema_that_no_document_can_hold_is_exported_as_its_text():
    fields = [{"name": "raw", "type": "bytes", "default": "\x00\xff"}]
    register("nul", {"type": "record", "name": "R", "fields": fields}, "AVRO")
    text = export_text()
    assert "\\u0000" in text
    forget()
    apply_text(text, "other.yaml", by="ann")
    assert export_text() == text


def applied(*entries, **options):
    return apply_text(json.dumps({"schemas": list(entries)}), "x.json", by="ann", **options)


def test_a_new_version_of_a_document_has_to_be_compatible():
    first = {"subject": "a", "version": 1, "schema": {"type": "object"}}
    applied(first)
    with pytest.raises(DocumentError, match="schema a: schema: Schema being registered is incompatible"):
        applied(first, {"subject": "a", "version": 2, "schema": {"type": "string"}})
    applied(first, {"subject": "a", "version": 5, "schema": {"type": "string"}, "compatibility": "NONE"})
    assert registry.latest_of("a")["version"] == 5
    applied(first, {"subject": "a", "schema": {"type": "string"}, "compatibility": "NONE"})
    assert [row.version for row in registry.live(Subject.objects.get())] == [1, 5]


def test_versions_before_the_latest_are_filled_in_deleted_and_shown_again():
    latest = {"subject": "a", "version": 3, "schema": HISTORY[2]}
    applied(latest)
    first = {"subject": "a", "version": 1, "schema": HISTORY[0]}
    (entry,) = applied(first).entries
    assert list(entry.fields()) == [("versions", {"live": [3], "deleted": []}, {"live": [1, 3], "deleted": []})]
    assert registry.latest_of("a")["version"] == 3
    applied(first, latest | {"is_deleted": True})
    assert registry.latest_of("a")["version"] == 1
    applied(first, latest)
    assert registry.latest_of("a")["version"] == 3
    assert not applied(first, latest)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"subject": "a", "version": 1, "schema": {"title": "Other"}}, "Version 1 of a is another schema here"),
        ({"subject": "a", "version": 1, "id": 2_000_000, "schema": HISTORY[0]}, "Version 1 of a has the id"),
        ({"subject": "b", "version": 1, "id": 2_000_000, "schema": HISTORY[0]}, "it is registered here with the id"),
        ({"subject": "b", "version": 1, "id": "taken", "schema": HISTORY[1]}, "another schema has it here"),
    ],
)
def test_what_would_change_a_version_or_an_id_is_refused(entry, fault):
    taken = register("a", HISTORY[0]).schema_id
    with pytest.raises(DocumentError, match=fault):
        applied(entry | ({"id": taken} if entry.get("id") == "taken" else {}))
    assert list(Subject.objects.values_list("name", flat=True)) == ["a"]


def test_a_read_only_subject_is_written_only_if_the_document_says_so():
    register("a", HISTORY[0])
    registry.configure("a", compatibility="NONE", mode="READONLY", by="ann")
    new = {"subject": "a", "schema": HISTORY[1], "compatibility": "NONE"}
    with pytest.raises(DocumentError, match="read-only mode"):
        applied(new | {"mode": "READONLY"})
    applied(new | {"mode": "READWRITE"})
    assert registry.latest_of("a")["version"] == 2


@pytest.mark.parametrize("seed", range(20))
def test_any_registry_comes_back_as_it_was(seed):
    dice = random.Random(seed)
    registry.configure("*", compatibility="NONE", by="ann")
    for number in range(dice.randrange(1, 25)):
        step(dice, number)
    text, before = export_text(), ids()
    assert not apply_text(text, "same.yaml", by="ann")
    forget()
    apply_text(text, "other.yaml", by="ann")
    assert (export_text(), ids()) == (text, before)


def step(dice, number):
    """Make one random change of the registry, as clients and operators might."""
    name = dice.choice(["a", "b/c", "*x", "ü-value"])
    subject = Subject.objects.filter(name=name).first()
    shown = [] if subject is None else [*registry.live(subject)]
    gone = [] if subject is None else [*subject.versions.filter(is_deleted=True)]
    others = [*SchemaVersion.objects.filter(is_deleted=False).select_related("subject").order_by("pk")]
    value = dict(dice.sample([("type", "object"), ("title", str(number)), ("zeta", {"b": 1, "a": [2.5, None]})], 3))
    with contextlib.suppress(RegistryError):
        match dice.randrange(6):
            case 0 if others:
                other = dice.choice(others)
                reference = {"name": "other.json", "subject": other.subject.name, "version": other.version}
                register(name, {"properties": {"x": {"$ref": "other.json"}}, **value}, references=[reference])
            case 1 if shown:
                registry.hide([dice.choice(shown)], subject, by="ann")
            case 2 if gone:
                registry.erase([dice.choice(gone)], subject, by="ann")
            case 3 if shown:
                registry.configure(name, compatibility=dice.choice(["", "NONE", "FULL"]), by="ann")
            case _:
                register(name, dice.choice([value, {"title": dice.choice("xyz")}]))
