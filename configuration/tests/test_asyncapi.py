import pytest

from configuration.importers import asyncapi
from configuration.importers import messages as of_messages
from configuration.tests.imports import SERVERS, SOCKET, asyncapi_3, channels_of, document, refusal_of
from configuration.yaml_documents import DocumentError
from gateway.schemas.checker import compile_schema


def test_asyncapi_2_is_read_with_messages_of_both_directions():
    components = {
        "messages": {"Up": {"payload": {"$ref": "#/components/schemas/Up"}}},
        "schemas": {"Up": {"type": "object"}},
    }
    channel = {
        "description": "Sign-ups\nof users.",
        "publish": {"message": {"$ref": "#/components/messages/Up"}},
        "subscribe": {"message": {"oneOf": [{"payload": {"type": "string"}}, {"payload": {"type": "string"}}]}},
    }
    data = {"asyncapi": "2.6.0", "channels": {"user/{id}/signedup": channel}, "components": components}
    found = channels_of(data)["user/{id}/signedup"]
    assert found["title"] == "Sign-ups of users."
    assert found["schema"] == {"anyOf": [{"type": "object"}, {"type": "string"}]}


@pytest.mark.parametrize(
    ("media_types", "content_type"),
    [
        (["application/json"], "json"),
        (["application/vnd.acme+json"], "application/vnd.acme+json"),
        (["text/plain"], "text/plain"),
        (["image/jpeg", "image/jpeg"], "image/jpeg"),
        (["text/plain", "text/csv"], "text"),
        (["application/json", "application/vnd.acme+json"], "json"),
        (["application/json", "image/jpeg"], "bytes"),
        (["no media type"], "bytes"),
        ([None], "application/xml"),
        ([], "application/xml"),
    ],
)
def test_the_content_type_of_messages_is_that_of_their_channel(media_types, content_type):
    messages = {
        f"m{number}": {"payload": {"type": "string"}} | ({"contentType": media_type} if media_type else {})
        for number, media_type in enumerate(media_types)
    }
    found = channels_of(asyncapi_3({"messages": messages}, defaultContentType="application/xml"))["a"]
    assert found.get("content_type", "json") == content_type
    assert (found["schema"] is not None) == ("json" in content_type)


def test_a_trait_may_name_the_content_type_and_protobuf_needs_no_schema_of_ours():
    payload = {"schemaFormat": "application/vnd.google.protobuf;version=3", "schema": "message A {}"}
    messages = {"m": {"traits": [{"contentType": "application/x-protobuf"}], "payload": payload}}
    found = channels_of(asyncapi_3({"messages": messages}))["a"]
    assert (found["content_type"], found["schema"]) == ("application/x-protobuf", None)


def test_the_values_of_a_parameter_are_those_of_its_enum():
    parameters = {
        "id": {"$ref": "#/components/parameters/id"},
        "free": {"description": "Any."},
        "other": {"enum": ["x"]},
    }
    channel = {"address": "sensors/{id}/{free}", "parameters": parameters}
    components = {"parameters": {"id": {"enum": ["a", "b"]}}}
    found = channels_of(asyncapi_3(channel, components=components))["sensors/{id}/{free}"]
    assert found["parameters"] == {"id": {"enum": ["a", "b"]}}


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"type": "integer", "enum": [1, 2]}, ["1", "2"]),
        ({"enum": [True, None, 1.5, "a b"]}, ["true", "null", "1.5", "a b"]),
        ({"type": "string", "const": "only"}, ["only"]),
        ({"const": 1, "enum": [1, 2]}, ["1"]),
        ({"$ref": "#/components/schemas/unit"}, ["C", "F"]),
    ],
)
def test_the_values_of_a_parameter_in_2_x_are_those_of_its_schema(schema, values):
    components = {"schemas": {"unit": {"type": "string", "enum": ["C", "F"]}}}
    channel = {"parameters": {"id": {"schema": schema}}}
    document = {"asyncapi": "2.6.0", "channels": {"sensors/{id}": channel}, "components": components}
    assert channels_of(document)["sensors/{id}"]["parameters"] == {"id": {"enum": values}}


def test_a_recursive_schema_is_imported_whole():
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}}
    messages = {"m": {"payload": {"$ref": "#/components/schemas/Tree"}}}
    data = {
        "asyncapi": "3.1.0",
        "channels": {"c": {"address": "a", "messages": messages}},
        "components": {"schemas": {"Tree": tree}},
    }
    validator = compile_schema(channels_of(data)["a"]["schema"])
    assert validator.is_valid({"kids": [{"kids": []}]})
    assert not validator.is_valid({"kids": [{"kids": 5}]})


def test_a_message_without_a_payload_may_be_anything():
    messages = {"a": {"payload": {"type": "object"}}, "b": {"summary": "free"}}
    data = {"asyncapi": "3.0.0", "channels": {"c": {"address": "a", "messages": messages}}}
    assert channels_of(data)["a"]["schema"] is None


def test_a_payload_may_name_its_format():
    payload = {"schemaFormat": "application/schema+json;version=draft-07", "schema": {"type": "object"}}
    data = {"asyncapi": "3.0.0", "channels": {"c": {"address": "a", "messages": {"m": {"payload": payload}}}}}
    assert channels_of(data)["a"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("channels", "fault"),
    [
        ({}, "describes no channels"),
        ({"c": {}}, "channel c has no address"),
        ({"c": {"address": None}}, "channel c has no address"),
        ({"c": {"$ref": "other.yaml#/c"}}, "other.yaml is not in this document, which was not read from a file"),
        ({"c": {"$ref": "#/components/channels/x"}}, "#/components/channels/x is not in this document"),
        ({"c": {"$ref": "#/channels/c"}}, "references are circular"),
        ({"c": {"address": "a", "messages": {"m": {"payload": 5}}}}, "must be a JSON Schema"),
        (
            {
                "c": {
                    "address": "a",
                    "messages": {"m": {"payload": {"schemaFormat": "application/vnd.google.protobuf", "schema": {}}}},
                }
            },
            "schemas in application/vnd.google.protobuf are not supported",
        ),
    ],
)
def test_an_asyncapi_document_that_cannot_be_read_says_why(channels, fault):
    assert fault in refusal_of({"asyncapi": "3.0.0", "channels": channels})


def test_other_versions_are_refused():
    assert "AsyncAPI 1.2.0 is not supported" in refusal_of({"asyncapi": "1.2.0", "channels": {}})
    assert "OpenAPI 4.0 is not supported" in refusal_of({"openapi": "4.0", "paths": {}})
    assert "Swagger 1.2 is not supported; 2.0 and OpenAPI 3.x are" in refusal_of({"swagger": "1.2", "paths": {}})
    assert "must be OpenAPI 3" in refusal_of({"paths": 5})


@pytest.mark.parametrize(
    ("names", "protocols"),
    [(["broker", "web"], ["mqtt", "websocket"]), (["kafka", "web"], ["websocket"]), (["kafka"], None), ([], None)],
)
def test_a_channel_has_the_protocols_of_its_own_servers(names, protocols):
    servers = [{"$ref": f"#/servers/{name}"} for name in names]
    found = channels_of(asyncapi_3({"servers": servers}, servers=SERVERS, components=SOCKET))["a"]
    assert found.get("protocols") == protocols


def test_x_address_precedes_the_address_at_another_broker():
    assert list(channels_of(asyncapi_3({"address": "lights.{id}.dim", "x-address": "lights/{id}"}))) == ["lights/{id}"]


def test_in_2_6_servers_are_named():
    data = {"asyncapi": "2.6.0", "servers": SERVERS, "components": SOCKET, "channels": {"a": {"servers": ["broker"]}}}
    assert channels_of(data)["a"]["protocols"] == ["mqtt"]
    data["channels"]["a"]["servers"] = ["nowhere"]
    assert "there is no server nowhere in `servers` (at #/channels/a/servers/0)" in refusal_of(data)


def test_bindings_of_a_channel_and_its_operations_are_protocols():
    operation = {"action": "send", "channel": {"$ref": "#/channels/c"}, "bindings": {"mqtt": {"qos": 1}, "x-mine": {}}}
    channel = {"bindings": {"ws": {"method": "GET"}, "amqp": {"is": "queue"}, "http": {}, "solace": {}}}
    found = channels_of(asyncapi_3(channel, {"o": operation}))["a"]
    assert found["protocols"] == ["websocket", "amqp", "http", "mqtt"]
    operation = {"action": "send", "channel": {"$ref": "#/channels/c"}, "traits": [{"$ref": "#/components/traits/t"}]}
    data = asyncapi_3({}, {"o": operation}, components={"traits": {"t": {"bindings": {"mqtt": {}}}}})
    assert channels_of(data)["a"]["protocols"] == ["mqtt"]
    data = {"asyncapi": "2.6.0", "channels": {"a": {"publish": {"bindings": {"sse": {}}}}}}
    assert channels_of(data)["a"]["protocols"] == ["sse"]
    assert "must be a mapping (at #/channels/c/bindings/ws)" in refusal_of(asyncapi_3({"bindings": {"ws": 5}}))


def test_retention_is_imported_from_a_kafka_topic():
    topic = {"retention.ms": 604800000, "retention.bytes": 1000000, "cleanup.policy": ["delete"]}
    found = channels_of(asyncapi_3({"bindings": {"kafka": {"topicConfiguration": topic}}}))["a"]
    assert found["retention"] == {"max_age_s": 604800, "max_bytes": 1000000}
    assert "protocols" not in found
    topic = {"retention.ms": -1, "retention.bytes": True}
    assert "retention" not in channels_of(asyncapi_3({"bindings": {"kafka": {"topicConfiguration": topic}}}))["a"]


def rights_of(data):
    return [right.text for right in asyncapi.rights(document(data))]


def test_the_application_of_a_document_needs_the_rights_of_its_operations():
    channels = {"c": {"$ref": "#/components/channels/c"}, "answers": {"address": "d/{id}"}}
    at, reply = {"$ref": "#/channels/c"}, {"channel": {"$ref": "#/channels/answers"}}
    operations = {
        "ask": {"action": "send", "channel": at, "reply": reply},
        "hear": {"action": "receive", "channel": {"$ref": "#/components/channels/c"}},
    }
    data = {"asyncapi": "3.0.0", "channels": channels, "components": {"channels": {"c": {"address": "a"}}}}
    assert rights_of(data | {"operations": operations}) == ["publish:a", "subscribe:d/{id}", "subscribe:a"]
    data = {"asyncapi": "2.6.0", "channels": {"in": {"publish": {}}, "out": {"subscribe": {}}}}
    assert rights_of(data) == ["subscribe:in", "publish:out"]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ({"action": "shout", "channel": {"$ref": "#/channels/c"}}, "send or receive (at #/operations/o/action)"),
        ({"action": "send"}, "has no channel; refer to one of `channels` (at #/operations/o)"),
        (
            {"action": "send", "channel": {"$ref": "#/channels/x"}},
            "is not in this document (at #/operations/o/channel)",
        ),
    ],
)
def test_an_operation_that_cannot_be_read_says_where(operation, fault):
    with pytest.raises(DocumentError) as refused:
        rights_of(asyncapi_3({}, {"o": operation}))
    assert fault in str(refused.value)


def test_messages_that_share_names_of_definitions_keep_their_own():
    messages = {
        name: {"payload": {"properties": {"x": {"$ref": f"#/components/{name}/X"}}, "required": ["x"]}}
        for name in ("schemas", "others")
    }
    components = {"schemas": {"X": {"type": "string"}}, "others": {"X": {"type": "integer"}}}
    data = asyncapi_3({"messages": messages}, components=components)
    validator = compile_schema(channels_of(data)["a"]["schema"])
    assert [validator.is_valid({"x": value}) for value in ("a", 1, 1.5)] == [True, True, False]


def test_a_schema_of_draft_7_is_read_as_one():
    pair = {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False}
    validator = compile_schema(channels_of(asyncapi_3({"messages": {"m": {"payload": pair}}}))["a"]["schema"])
    assert [validator.is_valid(value) for value in (["a", 1], [1], ["a", 1, 2])] == [True, False, False]


def test_channels_of_one_address_keep_the_bindings_of_each_in_version_2():
    topic = {"kafka": {"topicConfiguration": {"retention.ms": 60_000}}}
    described = {
        "a/{x}": {"publish": {"bindings": {"mqtt": {"qos": 1}}}, "bindings": {"http": {}}},
        "a/{y}": {"publish": {"bindings": {"amqp": {}}}, "bindings": topic},
    }
    (channel,) = channels_of({"asyncapi": "2.6.0", "channels": described}).values()
    assert channel["protocols"] == ["http", "mqtt", "amqp"]
    assert channel["retention"] == {"max_age_s": 60}


def test_a_binding_of_an_operation_does_not_hide_that_of_its_channel():
    topic = {"kafka": {"topicConfiguration": {"retention.ms": 60_000}}}
    operations = {"o": {"action": "send", "channel": {"$ref": "#/channels/c"}, "bindings": {"kafka": {"groupId": {}}}}}
    (channel,) = channels_of(asyncapi_3({"bindings": topic}, operations)).values()
    assert channel["retention"] == {"max_age_s": 60}


def test_channels_of_one_address_are_restricted_to_what_any_of_them_allows():
    def described(name, *values):
        return {"address": f"a/{{{name}}}", "parameters": {name: {"enum": list(values)} if values else {}}}

    channels = {"c": described("x", "1", "2"), "d": described("y", "2", "3")}
    (channel,) = channels_of({"asyncapi": "3.0.0", "channels": channels}).values()
    assert channel["parameters"] == {"x": {"enum": ["1", "2", "3"]}}
    (channel,) = channels_of({"asyncapi": "3.0.0", "channels": channels | {"e": described("z")}}).values()
    assert "parameters" not in channel


def test_channels_of_one_address_are_open_to_every_protocol_if_one_of_them_is():
    channels = {"c": {"address": "a", "bindings": {"mqtt": {}}}, "d": {"address": "a"}}
    (channel,) = channels_of({"asyncapi": "3.0.0", "channels": channels}).values()
    assert "protocols" not in channel


def test_a_document_whose_schemas_are_too_large_together_is_imported_without_them(monkeypatch):
    monkeypatch.setattr(of_messages, "NODES_MAX", 5)
    schema = {"type": "object", "title": "t"}
    each = {"messages": {"m": {"payload": {"$ref": "#/components/schemas/s"}}}}
    channels = {name: {"address": name, **each} for name in ("a", "b")}
    data = {"asyncapi": "3.0.0", "channels": channels, "components": {"schemas": {"s": schema}}}
    assert "have more than 5 values with all that they refer to" in refusal_of(data)
    assert [channel["schema"] for channel in channels_of(data).values()] == [schema, None]
