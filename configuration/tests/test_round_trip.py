"""Importing the AsyncAPI document that the data plane generates changes nothing."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configuration.importing import import_document
from configuration.yaml_documents import DocumentError, parse
from consumers.services import create_consumer, create_tier
from events.models import Channel
from events.services import create_channel, delete_channel
from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import PublicUrls, View
from gateway.schemas.checker import compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from keys.services import issue_key
from routes.models import Route
from routes.services import create_route, delete_route

pytestmark = pytest.mark.django_db

WHERE = PublicUrls("https://api.example", "mqtt://api.example:1883")


def exported(scopes=("*",)):
    snapshot = Snapshot.from_documents({"channel": [channel.document() for channel in Channel.objects.all()]})
    caller = Principal(consumer="acme", key="k", tier="free", scopes=scopes)
    return asyncapi.build_asyncapi(View(caller, WHERE, tuple(snapshot.channels())))


def imported(document, **options):
    return import_document(parse(json.dumps(document, ensure_ascii=False), "export.json"), by="ann", **options)


def assert_nothing_changes(**fields):
    channel = create_channel(**fields, by="ann")
    document = exported()
    diff = imported(document)
    assert not diff, [list(entry.fields()) for entry in diff.entries]
    before = channel.representation()
    delete_channel(channel, by="ann")
    imported(document)
    assert Channel.objects.get().representation() == before


@pytest.mark.parametrize("address", ["files/{path...}", "{device}/events", "my room/{x}/t", "x>y", "{all...}"])
def test_any_address_is_exported_and_imported(address):
    assert_nothing_changes(address=address)


def test_channels_that_overlap_are_exported_and_imported():
    for address in ("files/{path...}", "files/{path}", "files/a"):
        create_channel(address=address, by="ann")
    document = exported()
    assert not imported(document)
    Channel.objects.all().delete()
    imported(document)
    assert Channel.objects.count() == 3


TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]},
        {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"definitions": {"d/e": {"type": "string"}}, "properties": {"x": {"$ref": "#/definitions/d~1e"}}},
        {"properties": {"x": {"$ref": "#/properties/y"}, "y": {"type": "string"}}},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a", "minLength": 2}}},
        TREE,
        {"$id": "https://schemas.example/a", "properties": {"x": {"$ref": "#/properties/y"}, "y": {}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}], "additionalItems": False},
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 5, "exclusiveMinimum": True},
        {"dependencies": {"a": ["b"]}},
        {"properties": {"dependencies": {"type": "object"}, "items": {"type": "array"}}},
        {"prefixItems": [{"type": "string"}], "items": False},
        {"$anchor": "me", "properties": {"kid": {"$ref": "#me"}}},
        {"const": {"$ref": "#/nowhere"}},
        {"properties": {"$ref": {"type": "string"}, "$id": {"type": "integer"}}},
        {"schemaFormat": "something", "type": "object"},
        {"enum": ["no", "on", 1, 1.5, None, True, "1e3", "2026-01-01", "\u2028\x7f\U0001f600", "a\tb", "# x"]},
        {"const": 1.5e-22},
        {"const": 12345678901234567890123 % 2**63},
        {"patternProperties": {"^x-": {"type": "string", "pattern": r"^\d+$"}}, "additionalProperties": False},
    ],
)
def test_a_schema_comes_back_as_it_was(schema):
    assert_nothing_changes(address="a/{id}", schema=schema)


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "a", "title": " Two  words\n"},
        {"address": "a", "on_invalid": "dead-letter", "retention": {"max_age_s": 5, "max_events": 7}},
        {"address": "a", "protocols": ["mqtt", "http"]},
        {"address": "a", "protocols": ["amqp"]},
        {"address": "a", "protocols": ["amqp", "sse"]},
        {"address": "a?b#c/{d.e-f}"},
        {"address": "//a~1%2F/{x}"},
        {"address": "{everything}"},
        {"address": "ünï/cödé"},
        {"address": "a", "content_type": "text"},
        {"address": "a", "content_type": "bytes"},
        {"address": "a", "content_type": "application/json"},
        {"address": "a", "content_type": "text/plain; charset=utf-8"},
        {"address": "a", "content_type": "application/vnd.a+json", "schema": {"type": "object"}},
        {"address": "a/{x}/{y}", "parameters": {"y": {"enum": ["b", "a"]}}},
    ],
)
def test_every_field_comes_back_as_it_was(fields):
    assert_nothing_changes(**fields)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(-(2.0**62), 2.0**62)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab$/~", max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b c", "d/e", "f~g", "$ref", "items", "%41"])
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/$defs/d~1e", "#/properties/a", "#/definitions/a", "#/nowhere"])
SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional={"const": VALUES, "type": st.sampled_from(["string", "object"])})
    | st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"$ref": REFERENCES}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "$defs": st.dictionaries(NAMES, inner, max_size=2),
            "definitions": st.dictionaries(NAMES, inner, max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "description": st.text(max_size=5).filter(lambda text: "\x00" not in text),
            "default": VALUES,
            "$schema": st.sampled_from(
                ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"]
            ),
        },
    ),
    max_leaves=5,
)
LEVELS = st.text(st.characters(categories=("L", "N", "P"), exclude_characters="/{}+#*>"), min_size=0, max_size=4)
ADDRESSES = st.lists(LEVELS, min_size=0, max_size=3).map(lambda levels: "/".join(["c", *levels]))
DOORS = st.lists(st.sampled_from(["http", "sse", "websocket", "mqtt", "amqp"]), unique=True, max_size=5)
CHANNELS = st.fixed_dictionaries(
    {"address": ADDRESSES},
    optional={
        "schema": st.none() | SCHEMAS.filter(lambda schema: is_usable(schema)),
        "on_invalid": st.sampled_from(["reject", "dead-letter"]),
        "title": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=9),
        "protocols": DOORS,
        "retention": st.dictionaries(
            st.sampled_from(["max_age_s", "max_bytes", "max_events"]), st.integers(1, 10**9), max_size=3
        ),
    },
)


def is_usable(schema):
    try:
        compile_schema(schema)
    except InvalidSchema:
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(CHANNELS, max_size=4, unique_by=lambda channel: channel["address"]))
def test_any_exported_channels_are_imported_unchanged(channels):
    Channel.objects.all().delete()
    for fields in channels:
        create_channel(**fields, by="ann")
    before = {channel.address: channel.representation() for channel in Channel.objects.all()}
    if channels:
        document = exported()
        diff = imported(document)
        assert not diff, [list(entry.fields()) for entry in diff.entries]
        Channel.objects.all().delete()
        imported(document)
    assert {channel.address: channel.representation() for channel in Channel.objects.all()} == before


def test_the_rights_of_an_export_are_those_of_its_key():
    create_channel(address="trades", by="ann")
    create_channel(address="sensors/{id}", by="ann")
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")
    scopes = ["subscribe:trades", "publish:sensors/{id}"]
    key, _ = issue_key(consumer=consumer, scopes=scopes, by="ann")
    other, _ = issue_key(consumer=consumer, by="ann")
    document = exported(tuple(scopes))
    assert {name: operation["action"] for name, operation in document["operations"].items()} == {
        "receive-trades": "receive",
        "send-sensors-id": "send",
    }
    assert not imported(document, key_id=key.id)
    (entry,) = imported(document, key_id=other.id).entries
    assert (entry.kind, entry.name) == ("key", other.id)
    other.refresh_from_db()
    assert sorted(other.scopes) == sorted(scopes)


def test_routes_that_were_exported_are_not_changed_by_their_export():
    upstream = {"type": "upstream", "url": "https://up.example/{id}"}
    create_route(
        name="quotes", path="/quotes/{id}", methods=["GET", "POST", "QUERY", "REPORT"], handler=upstream, by="ann"
    )
    snapshot = Snapshot.from_documents({"route": [route.document() for route in Route.objects.all()]})
    caller = Principal(consumer="acme", key="k", tier="free", scopes=("*",))
    document = openapi.build_openapi(View(caller, WHERE, routes=tuple(snapshot.routes())))
    assert not imported(document)
    delete_route(Route.objects.get(), by="ann")
    with pytest.raises(DocumentError, match="the route quotes of another gateway cannot be imported"):
        imported(document)
