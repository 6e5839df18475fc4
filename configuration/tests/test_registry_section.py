"""The registry's schemas in a document: what is exported is applied elsewhere, and exported the same."""

import json

import pytest

from configuration.apply import apply_text
from configuration.export import export_text
from configuration.importing import import_document
from configuration.tests.test_registered_schemas import USER, exported, register
from configuration.yaml_documents import DocumentError, parse
from events import registry
from events.models import Channel, Schema, SchemaVersion, Subject
from events.services import create_channel

pytestmark = pytest.mark.django_db

LINE = {"type": "object", "zeta": 1, "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}


def forget():
    Channel.objects.all().delete()
    for model in (SchemaVersion, Schema, Subject):
        model.objects.all().delete()


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
    assert [entry["subject"] for entry in parse(text, "x").data["schemas"]] == ["*", "line", "a-orders", "users"]
    assert registry.latest("line").value == LINE
    assert registry.latest_of("line")["version"] == 2


@pytest.mark.parametrize(("schema", "type_"), [(LINE, "JSON"), (USER, "AVRO")])
def test_an_export_survives_the_asyncapi_document(schema, type_):
    register("orders-value", {"title": "First", **schema} if type_ == "JSON" else {**schema, "fields": []}, type_)
    registry.configure("orders-value", compatibility="NONE", by="ann")
    register("orders-value", schema, type_)
    registry.configure("orders-value", compatibility="", by="ann")
    create_channel(address="orders", schema={"subject": "orders-value"}, by="ann")
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
        ("schemas: [{subject: a, compatibility: SOME}]", "schema a: compatibility: Must be one of NONE"),
        ("schemas: [{subject: a, schema: {}, version: -1}]", "schema a: version: Must be a positive whole number"),
    ],
)
def test_an_invalid_schema_is_refused_with_its_place(text, fault):
    with pytest.raises(DocumentError, match=fault) as refused:
        apply_text(text, "x.yaml", by="ann")
    assert str(refused.value).startswith("x.yaml:1:")
    assert not Subject.objects.exists()
