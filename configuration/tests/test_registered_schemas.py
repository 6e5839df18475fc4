"""AsyncAPI documents and the schema registry: schemas are registered on import, exported, and imported again."""

import json

import pytest

from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.importing import import_document
from configuration.yaml_documents import DocumentError, parse
from events import registry
from events.models import Channel, Schema, Subject
from events.registry_schemas import parse_submitted
from events.services import create_channel, delete_channel
from gateway.contracts import asyncapi
from gateway.contracts.view import PublicUrls, View
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal

pytestmark = pytest.mark.django_db

USER = {"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}
GONE = {"type": "record", "name": "Gone", "fields": []}
AVRO = "application/vnd.apache.avro;version=1.9.0"
ORDER = {
    "type": "object", "properties": {"id": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "integer"}},
}  # fmt: skip


def imported(document, **more):
    return import_document(parse(json.dumps(document), "x.json"), by="ann", **more)


def of_messages(*payloads):
    messages = {f"m{number}": {"payload": payload} for number, payload in enumerate(payloads)}
    channels = {"users": {"address": "users/{id}", "messages": messages}}
    return {"asyncapi": "3.0.0", "info": {"title": "t", "version": "1"}, "channels": channels}


def avro(schema):
    return {"schemaFormat": AVRO, "schema": schema}


def exported():
    kinds = {"channel": Channel, "schema": Subject}
    snapshot = Snapshot.from_documents(
        {kind: [row.document() for row in model.objects.documented()] for kind, model in kinds.items()}
    )
    caller = Principal(consumer="acme", key="k", tier="free", scopes=("*",))
    where = PublicUrls("https://api.example")
    return asyncapi.build_asyncapi(View(caller, where, tuple(snapshot.channels()), subjects=snapshot.subjects()))


def register(subject, schema, type_="JSON", **more):
    return registry.register(
        subject, parse_submitted({"schema": json.dumps(schema), "schemaType": type_, **more}), by="ann"
    )


def test_avro_becomes_a_subject_that_the_channel_names():
    diff = imported(of_messages(avro(USER)))
    assert [(entry.kind, entry.name) for entry in diff.entries] == [
        ("schema", "users/{id}-value"), ("channel", "users/{id}"),
    ]  # fmt: skip
    assert Channel.objects.get().schema == {"subject": "users/{id}-value"}
    assert registry.latest("users/{id}-value").value == USER
    assert not imported(of_messages(avro(USER)))


def test_avro_of_version_2_is_read_too():
    message = {"schemaFormat": AVRO, "payload": USER}
    channels = {"users": {"publish": {"message": {"oneOf": [message, message]}}}}
    imported({"asyncapi": "2.6.0", "info": {"title": "t", "version": "1"}, "channels": channels})
    assert registry.latest("users-value").value == USER


def test_several_messages_in_avro_are_a_union():
    imported(of_messages(avro(USER), avro(GONE), avro(USER)))
    assert registry.latest("users/{id}-value").value == [USER, GONE]


def test_a_channel_keeps_the_subject_that_it_names():
    register("people", USER, "AVRO")
    create_channel(address="users/{id}", schema={"subject": "people"}, on_invalid="dead-letter", by="ann")
    wider = {**USER, "fields": [*USER["fields"], {"name": "age", "type": "int", "default": 0}]}
    entry, channel = imported(of_messages(avro(wider))).entries
    assert list(channel.fields()) == [("imported_from", "", "t (x.json)")]
    assert (entry.kind, entry.name, entry.after["version"]) == ("schema", "people", 2)


@pytest.mark.parametrize(
    ("payloads", "fault"),
    [
        ([avro(USER), {"type": "object"}], "either all messages of a channel must be in Avro"),
        ([avro({"type": "nothing"})], "The type 'nothing' is not defined"),
        ([avro({**USER, "fields": [{"name": "name", "type": "int"}]})], "incompatible with an earlier schema"),
    ],
)
def test_what_cannot_be_registered_is_said_and_nothing_is_kept(payloads, fault):
    register("users/{id}-value", USER, "AVRO")
    with pytest.raises(DocumentError, match=fault) as refused:
        imported(of_messages(*payloads), options=Options(is_strict=True))
    assert "(at #/channels/users" in str(refused.value)
    assert not Channel.objects.exists()


@pytest.mark.parametrize(("schema", "type_"), [(ORDER, "JSON"), (USER, "AVRO")])
def test_the_schema_of_a_subject_is_shown_and_comes_back(schema, type_):
    register("orders-value", schema, type_)
    channel = create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    document = exported()
    shown = document["components"]["schemas"]["orders"]
    assert "integer" in str(shown) if type_ == "JSON" else shown["schema"] == USER
    assert not imported(document)
    delete_channel(channel, by="ann")
    Subject.objects.all().delete()
    imported(document)
    assert Channel.objects.get().schema == {"subject": "orders-value"}
    assert (registry.latest("orders-value").value, registry.latest("orders-value").type) == (schema, type_)


def test_what_the_registry_holds_is_not_changed_by_an_export_of_another_gateway():
    register("orders-value", ORDER)
    create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    document = exported()
    register("orders-value", {**ORDER, "title": "Newer"})
    assert not imported(document)
    assert registry.latest("orders-value").value["title"] == "Newer"


def test_a_schema_with_references_is_only_named():
    register("id", {"type": "integer"})
    references = [{"name": "id.json", "subject": "id", "version": 1}]
    register("orders-value", {"properties": {"id": {"$ref": "id.json"}}}, references=references)
    create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    document = exported()
    assert document["components"]["schemas"] == {}
    assert document["channels"]["orders"]["messages"]["event"]["x-schema"] == '{"subject": "orders-value"}'
    assert not imported(document)


@pytest.mark.parametrize(
    ("schema", "type_"),
    [
        ({"type": "object", "$ref": "#"}, "JSON"),
        ({**USER, "fields": [{"name": "raw", "type": "bytes", "default": "\x00"}]}, "AVRO"),
        (True, "JSON"),
    ],
)
def test_a_schema_that_asyncapi_cannot_express_travels_as_text(schema, type_):
    register("orders-value", schema, type_)
    channel = create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    document = exported()
    assert document["components"]["schemas"] == {}
    delete_channel(channel, by="ann")
    Subject.objects.all().delete()
    imported(document)
    assert (registry.latest("orders-value").value, registry.latest("orders-value").type) == (schema, type_)


def test_an_id_that_is_taken_is_not_kept_and_said():
    register("orders-value", ORDER)
    channel = create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
    document = exported()
    delete_channel(channel, by="ann")
    Subject.objects.all().delete()
    Schema.objects.all().delete()
    taken = document["channels"]["orders"]["messages"]["event"]["x-schema-id"]
    other = parse_submitted({"schema": '{"title": "Other"}', "schemaType": "JSON"})
    registry.register("other", other, schema_id=taken, by="ann")
    report = Report()
    imported(document, report=report)
    assert registry.latest_of("orders-value")["id"] != taken
    assert [f"does not keep its id {taken}: another schema has it here" in line for line in report.skipped] == [True]
