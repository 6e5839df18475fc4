import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configuration.importers import asyncapi
from configuration.importing import described_objects, import_document
from configuration.tests.imports import SERVERS, SOCKET, document
from configuration.yaml_documents import DocumentError

REFERENCES = [{"$ref": "#/channels"}, {"$ref": "#"}, {"$ref": "file:///x"}, {"$ref": 5}]


JUNK = (None, True, 0, -1, 1.5, "", "x", [], [[]], {}, {"x": 1}, *REFERENCES)


WHOLE = {
    "asyncapi": "3.0.0",
    "servers": SERVERS,
    "components": {**SOCKET, "schemas": {"X": {"type": "string", "items": {"$ref": "#/components/schemas/X"}}}},
    "channels": {
        "c": {
            "address": "a/{id}",
            "title": "A",
            "servers": [{"$ref": "#/servers/broker"}, {"$ref": "#/servers/web"}],
            "messages": {
                "m": {
                    "payload": {"properties": {"x": {"$ref": "#/components/schemas/X"}}},
                    "traits": [{"contentType": "application/json"}],
                },
                "n": {"payload": {"schemaFormat": "application/schema+json", "schema": {"type": "object"}}},
            },
            "bindings": {"ws": {}, "kafka": {"topicConfiguration": {"retention.ms": 1000}}},
            "x-on-invalid": "reject",
            "x-retention": {"max_events": 5},
        },
        "d": {"address": "d", "messages": {"o": {"x-schema": "{}"}}, "x-protocols": ["mqtt"]},
    },
    "operations": {
        "o": {
            "action": "send",
            "channel": {"$ref": "#/channels/c"},
            "bindings": {"mqtt": {"qos": 1}},
            "traits": [{"bindings": {"amqp": {}}}],
            "reply": {"channel": {"$ref": "#/channels/d"}},
        }
    },
}
WHOLE_2 = {
    "asyncapi": "2.6.0",
    "servers": SERVERS,
    "channels": {
        "a": {
            "servers": ["broker"],
            "publish": {"message": {"oneOf": [{"payload": {"type": "string"}}]}, "bindings": {"mqtt": {}}},
            "subscribe": {"message": {"payload": {"type": "object"}}},
        }
    },
}
SWAGGER = {
    "swagger": "2.0",
    "host": "a.example",
    "basePath": "/v2",
    "schemes": ["https", "http"],
    "produces": ["application/json"],
    "paths": {
        "/a/{id}": {
            "get": {"operationId": "a", "produces": ["text/event-stream"], "schemes": ["http"], "responses": {}},
            "parameters": [{"$ref": "#/parameters/id"}],
        }
    },
}


def places(node, path=()):
    yield path
    for step, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*path, step))


def spoilt(whole, path, junk):
    if not path:
        return junk
    step, *rest = path
    found = list(whole) if isinstance(whole, list) else dict(whole)
    found[step] = spoilt(whole[step], rest, junk)
    return found


def refusal_of_any(junk, whole, path, read):
    """Return the DocumentError, if any; another exception fails the test."""
    try:
        read(document(spoilt(whole, path, junk)))
    except DocumentError as error:
        return str(error)
    return "x.json:"


def read_without_rows(given):
    described_objects(given)
    if asyncapi.is_asyncapi(given.data):
        asyncapi.rights(given)


@pytest.mark.parametrize("whole", [WHOLE, WHOLE_2, SWAGGER])
@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_any_value_at_any_place_is_read_or_refused_with_its_place(whole, junk):
    for path in places(whole):
        assert refusal_of_any(junk, whole, path, read_without_rows).startswith("x.json:")


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([(whole, path) for whole in (WHOLE, WHOLE_2, SWAGGER) for path in places(whole)]),
    st.sampled_from(JUNK),
)
def test_any_value_at_any_place_is_imported_or_refused_by_the_services(where, junk):
    def take(given):
        import_document(given, by="ann", dry_run=True)

    assert refusal_of_any(junk, *where, take).startswith("x.json:")
