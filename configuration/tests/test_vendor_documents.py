"""Kinds of documents that people publish, each an excerpt of one: what it becomes, and what is skipped."""

import json

import pytest

from configuration.importers import asyncapi, openapi, zuplo
from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.importing import import_file
from configuration.tests.imports import document, openapi_routes, refusal_of, zuplo_of
from events.models import Channel
from routes.models import Route

SERVER = [{"url": "https://up.example"}]
GET = {"get": {"responses": {}}}


def channels_in(described, version="3.0.0", **more):
    """Return the addresses of the channels, and what was skipped."""
    report = Report()
    data = {"asyncapi": version, "channels": described, **more}
    imported = asyncapi.channels(document(data), Options(), report)
    return [channel.values["address"] for channel in imported], report.skipped


def test_a_parameter_within_a_level_becomes_its_values():
    """Topics of asyncapi/spec's examples/adeo-kafka-request-reply-asyncapi.yml."""
    parameters = {"env": {"enum": ["dev", "prod"]}, "version": {"default": "V1"}}
    channel = {"address": "adeo-{env}-COSTING-REQUEST-{version}", "parameters": parameters}
    addresses, skipped = channels_in({"c": channel, "reply": {"address": None}})
    assert addresses == ["adeo-dev-COSTING-REQUEST-V1", "adeo-prod-COSTING-REQUEST-V1"]
    assert "channel reply has no address" in skipped[0]
    assert len(skipped) == 1


def test_a_parameter_within_a_level_has_its_values_in_its_schema_in_version_2():
    """The same document at version 2.4 (asyncapi/spec)."""
    schemas = {"env": {"schema": {"enum": ["dev", "sit"]}}, "version": {"schema": {"default": "V1"}}}
    addresses, skipped = channels_in({"adeo-{env}-R-{version}": {"parameters": schemas}}, "2.4.0")
    assert (addresses, skipped) == (["adeo-dev-R-V1", "adeo-sit-R-V1"], [])


@pytest.mark.parametrize(
    ("written", "address", "said"),
    [
        ("acme.{region}-orders.v{n}.created", "acme/{region}/{n}/created", "more addresses are taken"),
        ("shop/{a}{b}/x", "shop/{a_b}/x", "more addresses are taken"),
        ("/ws?token={token}", "/ws", "a query is no part of an address"),
        ("a/+/b/#", "a/{level2}/b/{rest...}", None),
        ("logs.*.error", "logs/{level2}/error", None),
        ("logs.#", "logs/{rest...}", None),
        ("orders.>", "orders/{rest...}", None),
        ("my room/{a b}/{2nd}", "my room/{a_b}/{_2nd}", None),
        ("handlaggning.requests", "handlaggning.requests", None),
        ("q-a7ba:_:HandleEvent", "q-a7ba:_:HandleEvent", None),
        ("/", "/", None),
    ],
)
def test_an_address_becomes_one_of_whole_levels(written, address, said):
    """Addresses of great-expectations/cloud, Forsakringskassan/rimfrost-process-asyncapi and others of their kind."""
    addresses, skipped = channels_in({"c": {"address": written}})
    assert addresses == [address]
    assert said in skipped[0] if said else not skipped


def test_an_address_of_a_level_with_an_open_parameter_alone_is_skipped():
    assert "list the values of the parameter in an enum" in refusal_of(
        {"asyncapi": "3.0.0", "channels": {"c": {"address": "orders-{id}"}}}
    )


def test_more_addresses_than_the_bound_become_one_of_whole_levels():
    values = {"env": {"enum": [f"e{number}" for number in range(101)]}}
    addresses, skipped = channels_in({"c": {"address": "a/x-{env}", "parameters": values}})
    assert addresses == ["a/{env}"]
    assert "more addresses are taken" in skipped[0]


def test_definitions_of_a_payload_are_found_in_it():
    """Payloads of swrlab/ard-eventhub's asyncapi.json, with ``#/definitions/…`` in themselves."""
    services = {"type": "array", "items": {"$ref": "#/definitions/urn"}}
    payload = {"properties": {"services": services}, "definitions": {"urn": {"type": "string"}}}
    report = Report()
    data = {"asyncapi": "3.0.0", "channels": {"c": {"address": "a", "messages": {"m": {"payload": payload}}}}}
    (channel,) = asyncapi.channels(document(data), Options(), report)
    assert not report.skipped
    assert channel.values["schema"]["properties"]["services"]["items"] == {"$ref": "#/definitions/urn"}


@pytest.mark.django_db
def test_files_of_a_folder_above_are_read_if_it_is_named(tmp_path):
    """References of asyncapi/spec's examples/social-media/backend/asyncapi.yaml."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "messages.yaml").write_text("liked: {payload: {$ref: './schemas.yaml#/liked'}}\n")
    (tmp_path / "common" / "schemas.yaml").write_text("liked: {type: object}\nid: {type: string, enum: [a]}\n")
    (tmp_path / "common" / "servers.yaml").write_text("web: {url: ws://x.example, protocol: ws}\n")
    (tmp_path / "backend").mkdir()
    backend = tmp_path / "backend" / "asyncapi.yaml"
    backend.write_text(
        "{asyncapi: 2.5.0, servers: {web: {$ref: '../common/servers.yaml#/web'}}, channels: {'comment/{id}/liked': {"
        "servers: [web], parameters: {id: {schema: {$ref: '../common/schemas.yaml#/id'}}},"
        "subscribe: {message: {$ref: '../common/messages.yaml#/liked'}}}}}"
    )
    report = Report()
    import_file(backend, report=report, by="ann")
    assert all("name the folder of all files with --folder" in line for line in report.skipped)
    said = {line.rpartition("; ")[2] for line in report.skipped}
    assert said == {
        "the parameters of comment/{id}/liked are not restricted",
        "the channel comment/{id}/liked is imported without its schema",
        "the channel comment/{id}/liked is imported for every protocol",
    }
    assert Channel.objects.get().schema is None
    report = Report()
    import_file(backend, folder=tmp_path, report=report, by="ann")
    channel = Channel.objects.get()
    assert not report.skipped
    assert (channel.schema, channel.protocols) == ({"type": "object"}, ["websocket"])
    assert channel.parameters == {"id": {"enum": ["a"]}}


def test_what_an_api_calls_itself_is_skipped_with_a_line():
    """Webhooks and callbacks of readmeio/oas-examples."""
    callbacks = {"onData": {"{$request.query.url}": {"post": {}}}}
    report = Report()
    data = {
        "openapi": "3.1.0",
        "servers": SERVER,
        "paths": {"/a": {"post": {"callbacks": callbacks, "responses": {}}}},
        "webhooks": {"newPet": {"post": {}}},
    }
    (route,) = openapi.routes(document(data), Options(), report)
    assert route.values["path"] == "/a"
    webhooks, calls_back = report.skipped
    assert "1 webhooks are skipped, as the API makes these calls itself: newPet" in webhooks
    assert "1 callbacks are skipped, as the API makes these calls itself: onData" in calls_back


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ({"url": "//api.example/v1"}, "https://api.example/v1/a"),
        ({"url": "https://{r}.example", "variables": {"r": {"enum": ["eu", "us"]}}}, "https://eu.example/a"),
        ({"url": "https://{r}.example/{b}", "variables": {"r": {"default": "eu"}, "b": {"default": "v2"}}},
         "https://eu.example/v2/a"),
    ],
)  # fmt: skip
def test_a_server_without_a_scheme_or_a_default_is_understood(server, url):
    (route,) = openapi_routes(document({"openapi": "3.0.0", "servers": [server], "paths": {"/a": GET}}))
    assert route.values["handler"]["url"] == url


def test_reused_path_items_and_paths_beyond_ascii_are_imported():
    """``components.pathItems`` of OpenAPI 3.1."""
    paths = {"/reused": {"$ref": "#/components/pathItems/r"}, "/größe": GET}
    data = {"openapi": "3.1.0", "servers": SERVER, "paths": paths, "components": {"pathItems": {"r": GET}}}
    reused, other = openapi_routes(document(data))
    assert reused.values["handler"]["url"] == "https://up.example/reused"
    assert (other.values["path"], other.values["handler"]["url"]) == ("/größe", "https://up.example/gr%C3%B6%C3%9Fe")


def test_a_path_with_a_query_is_imported_without_it():
    """Anthropic's document, whose paths of beta functions end in ``?beta=true``."""
    paths = {
        "/messages?beta=true": {"post": {"operationId": "beta_post"}, "get": {"operationId": "beta_get"}},
        "/messages": {"post": {"operationId": "post"}},
        "/skills?beta=true": {"get": {"operationId": "skills"}},
        "/skills?beta=false": {"get": {"operationId": "more"}},
    }
    report = Report()
    routes = openapi.routes(document({"openapi": "3.0.0", "servers": SERVER, "paths": paths}), Options(), report)
    assert [(one.values["name"], one.values["path"], one.values["methods"]) for one in routes] == [
        ("post", "/messages", ["POST"]),
        ("beta_get", "/messages", ["GET"]),
        ("skills", "/skills", ["GET"]),
    ]
    assert {one.values["handler"]["url"] for one in routes} == {
        "https://up.example/messages",
        "https://up.example/skills",
    }
    assert len(report.skipped) == 3
    assert "a query is no part of a path, so that /messages?beta=true is imported as /messages" in report.skipped[0]


def rewritten(pattern, path="/x", **item):
    report = Report()
    route = {"handler": {"export": "urlRewriteHandler", "options": {"rewritePattern": pattern}}}
    (imported,) = zuplo.routes(document(zuplo_of(route, path, **item)), None, Options(), report)
    return imported.values, report


def test_the_query_of_a_call_is_passed_anyway():
    """``${search}`` of zuplo-samples/rick-and-morty."""
    values, report = rewritten("https://rickandmortyapi.com/api/character${search}")
    assert values["handler"]["url"] == "https://rickandmortyapi.com/api/character"
    assert not report.placeholders


@pytest.mark.parametrize(
    ("pattern", "path", "url", "skipped"),
    [
        ("/users/:id(\\d+)/x", "/users/{id}/x", "https://u.example/${params.id}", "(\\d+) is not checked"),
        ("/files/:name.:ext", "/files/{name}.{ext}", "https://u.example/${params.name}", None),
        ("/proxy/(.*)", "/proxy/{rest...}", "https://u.example/${params.0}", None),
        ("/all/:tail*", "/all/{tail...}", "https://u.example/${params.tail}", None),
        ("/v1/episodes/", "/v1/episodes/", "https://u.example/", None),
    ],
)
def test_url_patterns_become_paths(pattern, path, url, skipped):
    """Paths of zuplo-samples/rick-and-morty, and others that the URL Pattern standard has."""
    values, report = rewritten(url, pattern, **{"x-zuplo-path": {"pathMode": "url-pattern"}})
    assert values["path"] == path
    assert "${" not in values["handler"]["url"]
    assert skipped in report.skipped[0] if skipped else not report.skipped


@pytest.mark.parametrize("pattern", ["/opt/:lang?", "/user/:id{/}?", "/a/*/b", "/a*b"])
def test_a_pattern_that_no_path_stands_for_is_refused(pattern):
    path_mode = {"x-zuplo-path": {"pathMode": "url-pattern"}}
    route = {"handler": {"export": "urlForwardHandler", "options": {"baseUrl": "https://u.example"}}}
    assert f"the pattern {pattern} is not supported" in refusal_of(zuplo_of(route, pattern, **path_mode))


@pytest.mark.django_db
def test_a_project_is_imported_with_its_schemas_and_composite_policies(tmp_path):
    """zuplo/zuplo's examples/schema-validation-file-ref, with policies of api-key-jwt-multi-auth."""
    config, schemas = tmp_path / "config", tmp_path / "schemas"
    config.mkdir()
    schemas.mkdir()
    (schemas / "todo.json").write_text('{"type": "object", "required": ["title"]}')
    auth0 = {"audience": "todos", "auth0Domain": "x.eu.auth0.com", "clientId": "c"}
    defined = {
        "dual-auth": ("composite-inbound", {"policies": ["keys", "tokens"]}),
        "keys": ("api-key-inbound", {}),
        "tokens": ("auth0-jwt-auth-inbound", auth0),
        "loop": ("composite-inbound", {"policies": ["loop"]}),
        "validate": ("request-validation-inbound", {"validateBody": "reject-and-log"}),
    }
    policies = [
        {"name": name, "policyType": kind, "handler": {"options": options}} for name, (kind, options) in defined.items()
    ]
    (config / "policies.json").write_text(json.dumps({"policies": policies}))
    route = {
        "handler": {"export": "urlForwardHandler", "options": {"baseUrl": "https://u.example"}},
        "policies": {"inbound": ["dual-auth", "loop", "validate"]},
    }
    body = {"content": {"application/json": {"schema": {"$ref": "../schemas/todo.json"}}}}
    operation = {"operationId": "todo", "requestBody": body, "x-zuplo-route": route}
    (config / "routes.oas.json").write_text(json.dumps({"openapi": "3.1.0", "paths": {"/todos": {"post": operation}}}))
    report = Report()
    import_file(config / "routes.oas.json", report=report, by="ann")
    kinds = [policy["type"] for policy in Route.objects.get().policies]
    assert kinds == ["api-key", "jwt", "placeholder", "validate"]
    assert "the policy loop must list other policies" in report.placeholders[0]
    assert not report.skipped
