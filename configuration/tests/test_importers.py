import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configuration.importers import asyncapi, openapi, zuplo
from configuration.importing import described, import_document, import_file
from configuration.yaml_documents import DocumentError, parse, read
from events.models import Channel
from events.services import create_channel, update_channel
from gateway.policies import KNOWN
from gateway.schemas.checker import compile_schema
from routes.models import Route
from routes.services import create_route

SEED = Path(__file__).parents[2] / "tests" / "conformance" / "seed"
TEMPERATURE = SEED / "temperature.asyncapi.yaml"
MARKET_DATA = SEED / "market-data.zuplo.json"
POLICIES = [
    {"type": "api-key", "options": {}, "mode": "enforce"},
    {"type": "rate-limit", "options": {}, "mode": "enforce"},
]


def document(data):
    return parse(json.dumps(data, indent=1), "x.json")


def refusal_of(data):
    with pytest.raises(DocumentError) as refused:
        described(document(data))
    return str(refused.value)


def channels_of(data):
    return {wanted.values["address"]: wanted.values for wanted in asyncapi.channels(document(data))}


def zuplo_of(route, path="/x", **item):
    return {path: {"get": {"operationId": "x", "x-zuplo-route": route}, **item}}


def handler(export="urlRewriteHandler", **options):
    return {"export": export, "options": options or {"rewritePattern": "https://up.example/x"}}


@pytest.mark.django_db
def test_the_temperature_document_becomes_a_channel_that_is_open_to_every_door():
    diff = import_file(TEMPERATURE, by="ann")
    assert [(entry.action, entry.kind, entry.name) for entry in diff.entries] == [
        ("created", "channel", "sensors/temperature")
    ]
    channel = Channel.objects.get()
    assert channel.protocols == []
    assert channel.on_invalid == "dead-letter"
    validator = compile_schema(channel.schema)
    assert validator.is_valid({"deviceId": "d", "value": 21.5, "unit": "C"})
    assert not validator.is_valid({"value": "warm"})


@pytest.mark.django_db
def test_importing_again_changes_nothing_and_keeps_what_the_document_has_no_say_in():
    import_file(TEMPERATURE, by="ann")
    update_channel(Channel.objects.get(), retention={"max_events": 5}, protocols=["mqtt"], title="Mine", by="ann")
    assert not import_file(TEMPERATURE, by="ann")
    channel = Channel.objects.get()
    assert (channel.retention, channel.protocols, channel.title) == ({"max_events": 5}, ["mqtt"], "Mine")


@pytest.mark.django_db
def test_a_channel_that_exists_takes_over_the_schema():
    create_channel(address="sensors/temperature", by="ann")
    diff = import_file(TEMPERATURE, by="ann")
    assert [entry.action for entry in diff.entries] == ["updated"]
    assert Channel.objects.get().schema["properties"]["unit"]["enum"] == ["C", "F"]


@pytest.mark.django_db
def test_the_market_data_document_becomes_a_websocket_route_with_its_policies():
    import_file(MARKET_DATA, by="ann")
    assert Route.objects.get().document() == {
        "name": "ws-market-data",
        "path": "/ws/market-data",
        "methods": ["GET"],
        "protocol": "websocket",
        "handler": {"type": "upstream", "url": "https://backend.internal/market-data"},
        "policies": POLICIES,
        "reserved_override": False,
    }
    assert not import_file(MARKET_DATA, by="ann")


@pytest.mark.django_db
def test_the_same_with_another_host_updates_the_route(tmp_path):
    import_file(MARKET_DATA, by="ann")
    mine = tmp_path / "mine.json"
    mine.write_text(MARKET_DATA.read_text().replace("https://backend.internal", "http://127.0.0.1:8090"))
    import_file(mine, by="ann")
    assert Route.objects.get().handler["url"] == "http://127.0.0.1:8090/market-data"


@pytest.mark.django_db
def test_a_route_of_another_name_at_the_same_path_is_updated_under_its_name():
    upstream = {"type": "upstream", "url": "ws://127.0.0.1:9/"}
    create_route(name="mine", path="/ws/market-data", protocol="websocket", handler=upstream, by="ann")
    import_file(MARKET_DATA, by="ann")
    route = Route.objects.get()
    assert (route.name, route.handler["url"]) == ("mine", "https://backend.internal/market-data")


@pytest.mark.django_db
def test_a_path_of_a_document_is_not_taken_for_the_door_of_mqtt():
    create_route(name="devices", path="/mqtt", protocol="mqtt", handler={"type": "builtin"}, by="ann")
    data = {"openapi": "3.1.0", "servers": [{"url": "https://up.example"}], "paths": {"/mqtt": {"get": {}}}}
    import_document(document(data), by="ann")
    assert sorted(Route.objects.values_list("protocol", "path")) == [("http", "/mqtt"), ("mqtt", "/mqtt")]


@pytest.mark.django_db
def test_a_document_that_a_service_refuses_is_taken_not_at_all():
    paths = {"/a": {"get": {}}, "/admin/x": {"get": {}}}
    data = {"openapi": "3.1.0", "servers": [{"url": "https://up.example"}], "paths": paths}
    with pytest.raises(DocumentError, match=r"x\.json:\d+:\d+: route admin-x: path: Is under a reserved prefix"):
        import_document(document(data), by="ann")
    assert not Route.objects.exists()


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


def test_a_schema_that_refers_to_itself_is_carried_whole():
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
    ("channels", "said"),
    [
        ({}, "describes no channels"),
        ({"c": {}}, "channel c has no address"),
        ({"c": {"address": None}}, "channel c has no address"),
        ({"c": {"$ref": "other.yaml#/c"}}, "other.yaml#/c is not in this document; only references that begin with #/"),
        ({"c": {"$ref": "#/components/channels/x"}}, "#/components/channels/x is not in this document"),
        ({"c": {"$ref": "#/channels/c"}}, "references lead nowhere"),
        ({"c": {"address": "a", "messages": {"m": {"payload": 5}}}}, "described by a JSON Schema"),
        (
            {
                "c": {
                    "address": "a",
                    "messages": {"m": {"payload": {"schemaFormat": "application/vnd.google.protobuf", "schema": {}}}},
                }
            },
            "schemas in application/vnd.google.protobuf are not read",
        ),
    ],
)
def test_an_asyncapi_document_that_cannot_be_read_says_why(channels, said):
    assert said in refusal_of({"asyncapi": "3.0.0", "channels": channels})


def test_other_versions_are_refused():
    assert "AsyncAPI 1.2.0 is not read" in refusal_of({"asyncapi": "1.2.0", "channels": {}})
    assert "OpenAPI 4.0 is not read" in refusal_of({"openapi": "4.0", "paths": {}})
    assert "is neither" in refusal_of({"swagger": "2.0", "paths": {}})


def test_openapi_gives_one_route_for_every_path():
    data = {
        "openapi": "3.1.0",
        "servers": [{"url": "https://{host}/v2/", "variables": {"host": {"default": "up.example"}}}],
        "paths": {
            "/pets/{pet-id}": {"get": {"operationId": "getPet"}, "delete": {}, "parameters": []},
            "/feed": {"get": {"operationId": "feed", "responses": {"200": {"content": {"text/event-stream": {}}}}}},
            "/own": {"servers": [{"url": "http://other.example"}], "post": {"operationId": "make own"}},
            "/head-only": {"head": {}},
            "x-note": "none of ours",
        },
    }
    pets, feed, own = (wanted.values for wanted in openapi.routes(document(data)))
    assert (pets["name"], pets["path"], pets["methods"]) == ("pets-pet-id", "/pets/{pet_id}", ["GET", "DELETE"])
    assert pets["handler"]["url"] == "https://up.example/v2/pets/{pet_id}"
    assert (feed["name"], feed["protocol"]) == ("feed", "sse")
    assert (own["name"], own["handler"]["url"]) == ("make-own", "http://other.example/own")
    assert all(route["policies"] == [{"type": "api-key"}, {"type": "rate-limit"}] for route in (pets, feed, own))


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        (None, "names no servers"),
        ([], "names no servers"),
        ([{"url": "/v1"}], "is relative"),
        ([{"url": "https://{host}/"}], "the variable host of the server has no default"),
    ],
)
def test_openapi_without_a_server_that_can_be_called_is_refused(servers, said):
    data = {"openapi": "3.0.3", "paths": {"/a": {"get": {}}}} | ({"servers": servers} if servers is not None else {})
    assert said in refusal_of(data)


def test_zuplo_routes_are_read_with_their_handlers_and_paths():
    rewrite = zuplo_of({"handler": handler(rewritePattern="https://up.example/p/${params.id}")}, "/p/{id}")
    forward = zuplo_of({"handler": handler("urlForwardHandler", baseUrl="https://up.example/")}, "/f/:id/(.*)")
    forward["/f/:id/(.*)"]["x-zuplo-path"] = {"pathMode": "url-pattern"}
    found = [wanted.values for wanted in zuplo.routes(document({"openapi": "3.1.0", "paths": rewrite | forward}))]
    assert (found[0]["path"], found[0]["handler"]["url"]) == ("/p/{id}", "https://up.example/p/{id}")
    assert (found[1]["path"], found[1]["handler"]["url"]) == ("/f/{id}/{rest...}", "https://up.example/f/{id}/{rest}")
    assert [route["name"] for route in found] == ["x", "x-2"]


def test_the_token_policy_is_taken_over():
    (wanted,) = zuplo.routes(
        document(zuplo_of({"handler": handler(), "policies": {"inbound": ["open-id-jwt-auth-inbound"]}}))
    )
    assert wanted.values["policies"] == [{"type": "jwt"}]


def test_the_open_cors_policy_is_taken_over():
    (wanted,) = zuplo.routes(document(zuplo_of({"handler": handler(), "corsPolicy": "anything-goes"})))
    assert wanted.values["policies"] == [{"type": "cors", "options": {"allowed_origins": ["*"]}}]


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            {"handler": handler(), "policies": {"inbound": ["monetization-inbound"]}},
            "the policy monetization-inbound is not",
        ),
        ({"handler": handler(), "policies": {"inbound": [{"name": "x"}]}}, "inbound is a list of names"),
        (
            {"handler": handler(), "policies": {"outbound": ["x"]}},
            "the policy x is not known; there are api-key-inbound",
        ),
        ({"handler": handler(), "policies": {"outbound": ["set-headers-inbound"]}}, "is inbound, not outbound"),
        (
            {"handler": handler(), "policies": {"inbound": ["request-size-limit-inbound"]}},
            "the policy request-size-limit-inbound: needs the option maxSizeInBytes; its options stand in",
        ),
        ({"handler": handler(), "policies": {"inbound": ["custom-code-inbound"]}}, "its code is not Python"),
        ({"handler": handler("awsLambdaHandler")}, "the handler awsLambdaHandler is not read"),
        ({"handler": handler(rewritePattern="${env.BASE_URL}/x")}, "${env.BASE_URL} is known to Zuplo alone"),
        ({"handler": handler(forwardSearch=True)}, "names no URL"),
        ({"handler": handler(), "corsPolicy": "mine"}, "the CORS policy mine stands in config/policies.json"),
        ({}, "must be a mapping"),
    ],
)
def test_what_zuplo_alone_knows_is_refused_by_name(route, said):
    assert said in refusal_of(zuplo_of(route))


def defined(name, type_, **options):
    return {"name": name, "policyType": type_, "handler": {"export": "x", "module": "y", "options": options}}


PROJECT = [
    (defined("keys", "api-key-inbound", cacheTtlSeconds=60), {"type": "api-key"}),
    (defined("plain", "rate-limit-inbound"), {"type": "rate-limit"}),
    (
        defined("slow", "rate-limit-inbound", rateLimitBy="ip", requestsAllowed=2, timeWindowMinutes=1),
        {"type": "rate-limit", "options": {"rateLimitBy": "ip", "requestsAllowed": 2, "timeWindowMinutes": 1}},
    ),
    (
        defined("by-tier", "rate-limit-inbound", rateLimitBy="function", function="demo.hooks:limit_of"),
        {"type": "rate-limit", "options": {"rateLimitBy": "function", "function": "demo.hooks:limit_of"}},
    ),
    (
        defined("office", "ip-restriction-inbound", allowedIpAddresses=["192.0.2.0/24"], blockedIpAddresses=[]),
        {"type": "ip-restriction", "options": {"allow": ["192.0.2.0/24"], "deny": []}},
    ),
    (
        defined("office-2", "ip-address-restriction-inbound", deny=["192.0.2.1"]),
        {"type": "ip-restriction", "options": {"deny": ["192.0.2.1"]}},
    ),
    (
        defined("small", "request-size-limit-inbound", maxSizeInBytes=10, trustContentLengthHeader=True),
        {"type": "request-size-limit", "options": {"max_bytes": 10}},
    ),
    (
        defined("strict", "request-validation-inbound", validateBody="log-only", logLevel="info"),
        {"type": "validate", "options": {"schema": {"type": "object"}}, "mode": "shadow"},
    ),
    (
        defined("named", "set-headers-inbound", headers=[{"name": "X-A", "value": "1"}]),
        {"type": "set-headers", "options": {"headers": {"X-A": "1"}, "on": "request"}},
    ),
    (
        defined("clean", "remove-headers-inbound", headers=["X-B"]),
        {"type": "remove-headers", "options": {"headers": ["X-B"], "on": "request"}},
    ),
    (
        defined("mine", "custom-code-inbound", function="demo.hooks:add_region", region="eu"),
        {
            "type": "custom",
            "options": {
                "function": "demo.hooks:add_region",
                "on": "inbound",
                "body": False,
                "options": {"region": "eu"},
            },
        },
    ),
    (
        defined(
            "idp",
            "open-id-jwt-auth-inbound",
            issuer="https://idp.example",
            audience="api",
            jwkUrl="https://idp.example/k",
        ),
        {"type": "jwt", "options": {"issuers": ["idp"]}},
    ),
]


def project(named=None):
    named = [given["name"] for given, _ in PROJECT] if named is None else named
    route = {
        "handler": handler(),
        "policies": {"inbound": named, "outbound": ["safe", "quiet"]},
        "corsPolicy": "ours",
    }
    policies = [
        *(given for given, _ in PROJECT),
        defined("safe", "set-headers-outbound", headers=[{"name": "X-C", "value": "2"}]),
        defined("quiet", "remove-headers-outbound", headers=["Server"]),
    ]
    paths = zuplo_of(route)
    paths["/x"]["get"]["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    cors = [{"name": "ours", "allowedOrigins": ["https://a.example"]}]
    return paths, {"policies": policies, "corsPolicies": cors}


def test_a_projects_policies_are_taken_over_with_their_options_in_their_order():
    paths, policies = project()
    together = zuplo.routes(document({"openapi": "3.1.0", "paths": paths, **policies}))
    assert zuplo.routes(document({"openapi": "3.1.0", "paths": paths}), document(policies)) == together
    issuer, wanted = together
    assert wanted.values["policies"] == [
        *(ours for _, ours in PROJECT),
        {"type": "set-headers", "options": {"headers": {"X-C": "2"}, "on": "response"}},
        {"type": "remove-headers", "options": {"headers": ["Server"], "on": "response"}},
        {"type": "cors", "options": {"allowed_origins": ["https://a.example"]}},
    ]
    assert issuer.section == "issuers"
    assert issuer.values["jwks_url"] == "https://idp.example/k"


@pytest.mark.django_db
def test_a_projects_policies_can_be_saved_and_imported_twice():
    paths, policies = project([given["name"] for given, ours in PROJECT if ours["type"] in KNOWN])
    import_document(document({"openapi": "3.1.0", "paths": paths, **policies}), by="ann")
    assert [policy["type"] for policy in Route.objects.get().policies][-1] == "cors"
    assert not import_document(document({"openapi": "3.1.0", "paths": paths, **policies}), by="ann")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (defined("p", "monetization-inbound"), "the policy p is not known; there are api-key-inbound"),
        (defined("p", "api-key-inbound", allowUnauthenticatedRequests=True), "every route needs a key"),
        (defined("p", "rate-limit-inbound", identifier={"export": "x"}, rateLimitBy="function"), "is not Python"),
        (defined("p", "rate-limit-inbound", sliding=True), "the option sliding is not read"),
        (defined("p", "request-validation-inbound", validateHeaders="log-only"), "validateHeaders is not read"),
        (defined("p", "request-validation-inbound", validateBody="maybe"), "validateBody is none of none"),
        (defined("p", "set-headers-inbound", headers=[{"name": "A"}]), "a header has a name and a value"),
        (defined("p", "set-headers-inbound", headers=[{"name": "A", "value": 1, "overwrite": False}]), "overwrite"),
        (defined("p", "remove-headers-inbound", headers="A"), "headers is a list"),
        (defined("p", "open-id-jwt-auth-inbound", issuer="https://i"), "needs the option jwkUrl"),
    ],
)
def test_what_a_project_asks_for_and_is_not_here_is_refused_by_name(policy, said):
    paths = zuplo_of({"handler": handler(), "policies": {"inbound": ["p"]}})
    refusal = refusal_of({"openapi": "3.1.0", "paths": paths, "policies": [policy]})
    assert said in refusal
    assert "x.json:" in refusal


def test_the_fault_of_a_seed_like_document_is_told_with_its_place():
    text = MARKET_DATA.read_text().replace("rate-limit-inbound", "quota-inbound")
    with pytest.raises(DocumentError, match=r"m\.json:18:42: the policy quota-inbound is not known"):
        described(parse(text, "m.json"))


def test_the_seed_documents_are_told_apart():
    assert asyncapi.is_asyncapi(read(TEMPERATURE).data)
    assert zuplo.is_zuplo(read(MARKET_DATA).data)
    assert not openapi.is_openapi(read(MARKET_DATA).data)


def asyncapi_3(channel, operations=None, servers=None, **more):
    channels = {"c": {"address": "a", **channel}}
    return {"asyncapi": "3.0.0", "channels": channels, "operations": operations or {}, "servers": servers or {}, **more}


SERVERS = {
    "broker": {"host": "b.example", "protocol": "secure-mqtt"},
    "web": {"$ref": "#/components/servers/socket"},
    "kafka": {"host": "k.example", "protocol": "kafka"},
}
SOCKET = {"servers": {"socket": {"host": "w.example", "protocol": "wss"}}}


@pytest.mark.parametrize(
    ("names", "protocols"),
    [(["broker", "web"], ["mqtt", "websocket"]), (["kafka", "web"], ["websocket"]), (["kafka"], None), ([], None)],
)
def test_a_channel_is_open_to_the_doors_of_its_own_servers(names, protocols):
    servers = [{"$ref": f"#/servers/{name}"} for name in names]
    found = channels_of(asyncapi_3({"servers": servers}, servers=SERVERS, components=SOCKET))["a"]
    assert found.get("protocols") == protocols


def test_an_address_of_ours_stands_before_that_of_another_broker():
    assert list(channels_of(asyncapi_3({"address": "lights.{id}.dim", "x-address": "lights/{id}"}))) == ["lights/{id}"]


def test_in_2_6_servers_are_named():
    data = {"asyncapi": "2.6.0", "servers": SERVERS, "components": SOCKET, "channels": {"a": {"servers": ["broker"]}}}
    assert channels_of(data)["a"]["protocols"] == ["mqtt"]
    data["channels"]["a"]["servers"] = ["nowhere"]
    assert "there is no server nowhere in `servers` (at #/channels/a/servers/0)" in refusal_of(data)


def test_bindings_of_a_channel_and_its_operations_name_doors():
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


def test_a_kafka_topic_says_how_long_events_are_kept():
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
    ("operation", "said"),
    [
        ({"action": "shout", "channel": {"$ref": "#/channels/c"}}, "send or receive (at #/operations/o/action)"),
        ({"action": "send"}, "names no channel; refer to one of `channels` (at #/operations/o)"),
        (
            {"action": "send", "channel": {"$ref": "#/channels/x"}},
            "is not in this document (at #/operations/o/channel)",
        ),
    ],
)
def test_an_operation_that_cannot_be_read_says_where(operation, said):
    with pytest.raises(DocumentError) as refused:
        rights_of(asyncapi_3({}, {"o": operation}))
    assert said in str(refused.value)


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


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("channel", "said"),
    [
        (
            {"address": "a-{id}"},
            r"channel a-\{id\}: address: a parameter must be a whole.*at #/channels/c/address",
        ),
        ({"x-on-invalid": ["drop"]}, "on_invalid"),
        ({"x-protocols": 5}, "protocols: A list of http"),
        ({"x-retention": {"max_age_s": -1}}, r"retention.max_age_s: Must be a number from 1"),
        ({"messages": {"m": {"x-schema": "{"}}}, r"is not JSON: .*at #/channels/c/messages/m/x-schema"),
        ({"messages": {"m": {"x-schema": "5"}}}, "described by a JSON Schema"),
    ],
)
def test_what_cannot_be_a_channel_is_refused_at_its_place(channel, said):
    with pytest.raises(DocumentError, match=said):
        import_document(document(asyncapi_3(channel)), by="ann")
    assert not Channel.objects.exists()


@pytest.mark.django_db
def test_only_a_known_key_is_given_rights():
    with pytest.raises(DocumentError, match="there is no key abc"):
        import_document(read(TEMPERATURE), key_id="abc", by="ann")
    with pytest.raises(DocumentError, match="only an AsyncAPI document says which rights"):
        import_document(read(MARKET_DATA), key_id="abc", by="ann")
    assert not Channel.objects.exists()


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
                "m": {"payload": {"properties": {"x": {"$ref": "#/components/schemas/X"}}}},
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
    """Give what was refused, if anything; what is no DocumentError is a fault of ours."""
    try:
        read(document(spoilt(whole, path, junk)))
    except DocumentError as error:
        return str(error)
    return "x.json:"


def read_without_rows(given):
    described(given)
    if asyncapi.is_asyncapi(given.data):
        asyncapi.rights(given)


@pytest.mark.parametrize("whole", [WHOLE, WHOLE_2])
@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_whatever_stands_at_a_place_is_read_or_refused_with_its_place(whole, junk):
    for path in places(whole):
        assert refusal_of_any(junk, whole, path, read_without_rows).startswith("x.json:")


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([(whole, path) for whole in (WHOLE, WHOLE_2) for path in places(whole)]), st.sampled_from(JUNK))
def test_whatever_stands_at_a_place_is_taken_or_refused_by_the_services(where, junk):
    def take(given):
        import_document(given, by="ann", dry_run=True)

    assert refusal_of_any(junk, *where, take).startswith("x.json:")
