"""What an import takes over, skips and refuses, with its options."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from configuration.apply import apply_document
from configuration.importers.options import Options, read_variables
from configuration.importers.report import Report
from configuration.importing import import_document, import_file
from configuration.tests.imports import document, openapi_routes, zuplo_routes
from configuration.yaml_documents import DocumentError, parse
from events.models import Channel
from gateway.schemas.checker import compile_schema
from routes.models import Route
from routes.services import create_route, update_route

UP = [{"url": "https://up.example"}]


def api(paths, title="Shop", servers=UP):
    return {"openapi": "3.0.3", "info": {"title": title, "version": "1"}, "servers": servers, "paths": paths}


def imported(data, name="x.json", **more):
    options = Options(**{key: more.pop(key) for key in list(more) if key in Options.__dataclass_fields__})
    return import_document(parse(json.dumps(data, indent=1), name), options=options, by="ann", **more)


@pytest.mark.django_db
def test_what_means_nothing_here_is_skipped_with_a_line_unless_strict():
    report = Report()
    data = api({"/a": {"get": {}}, "/b#x": {"get": {}}, "/docs/{page}": {"get": {}}, "/t": {"trace": {}}})
    imported(data, report=report)
    assert list(Route.objects.values_list("path", flat=True)) == ["/a"]
    assert [line.split(": ", 1)[0].count(":") for line in report.skipped] == [2, 2, 2]
    with pytest.raises(DocumentError) as refused:
        imported(data, is_strict=True)
    assert str(refused.value).splitlines() == report.skipped


@pytest.mark.django_db
def test_a_document_of_which_nothing_is_left_is_refused_with_every_fault():
    with pytest.raises(DocumentError) as refused:
        imported(api({"/docs/a": {"get": {}}, "/b#x": {"get": {}}}))
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.django_db
def test_paths_under_v1_are_taken_except_for_the_gateways_own():
    report = Report()
    data = api({"/v1/charges/{id}": {"get": {}}, "/v1/events": {"get": {}}})
    imported(data, report=report)
    route = Route.objects.get()
    assert (route.path, route.reserved_override) == ("/v1/charges/{id}", True)
    assert "/v1/events is an address of the gateway itself; import it under a --prefix" in report.skipped[0]
    imported(data, prefix="/stripe/")
    assert Route.objects.filter(path="/stripe/v1/events", reserved_override=False).exists()


@pytest.mark.django_db
def test_no_document_takes_over_routes_of_another():
    """As reported in platformatic/platformatic#1242."""
    pets = {"/pets/{id}": {"get": {"operationId": "getPet"}}, "/feed": {"get": {}}}
    assert imported(api(pets, "One"), "one.json")
    others = {"/animals": {"get": {"operationId": "getPet"}}, "/pets/{petId}": {"get": {}}, "/new": {"get": {}}}
    with pytest.raises(DocumentError) as refused:
        imported(api(others, "Two"), "two.json")
    by_id, by_path = str(refused.value).splitlines()
    for line in (by_id, by_path):
        assert "was made from One (one.json), and this document is Two (two.json); import it under a --prefix" in line
    assert not Route.objects.filter(path="/new").exists()
    imported(api(others, "Two"), "two.json", prefix="/two")
    assert sorted(Route.objects.values_list("name", flat=True)) == [
        "feed",
        "getPet",
        "two-getPet",
        "two-new",
        "two-pets-petId",
    ]
    assert not imported(api(pets, "One"), "one.json")
    assert not imported(api(others, "Two"), "two.json", prefix="/two")


@pytest.mark.django_db
def test_a_route_made_by_hand_is_not_moved_to_another_path():
    create_route(name="health", path="/healthy", handler={"type": "upstream", "url": "http://a.example"}, by="ann")
    with pytest.raises(DocumentError, match="a route of this name, which no import made, serves /healthy"):
        imported(api({"/status": {"get": {"operationId": "health"}}}))


@pytest.mark.django_db
def test_channels_of_one_address_are_merged():
    """As reported in asyncapi/parser-api#104 and asyncapi/extensions-catalog#181."""
    channels = {
        name: {"address": f"users/{{{parameter}}}", "messages": {"m": {"payload": {"type": kind}}}}
        for name, parameter, kind in (("signedUp", "id", "object"), ("renamed", "userId", "string"))
    }
    data = {"asyncapi": "3.0.0", "info": {"title": "Users", "version": "1"}, "channels": channels}
    imported(data)
    channel = Channel.objects.get()
    validator = compile_schema(channel.schema)
    assert channel.address == "users/{id}"
    assert [validator.is_valid(value) for value in ({}, "x", 5)] == [True, True, False]
    assert not imported(data)
    with pytest.raises(DocumentError, match=r"channel users/\{id\} was made from Users \(x.json\)"):
        imported(data | {"info": {"title": "Others", "version": "1"}}, "y.json")


@pytest.mark.django_db
def test_a_dry_run_reports_the_same_and_only_reads():
    data = api({"/a": {"get": {"operationId": "a"}}})
    tiers = parse("tiers: [{name: gold}]", "x.yaml")
    with CaptureQueriesContext(connections["default"]) as queries:
        planned = imported(data, dry_run=True)
        assert apply_document(tiers, by="ann", dry_run=True)
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}
    assert planned.entries == imported(data).entries
    assert not imported(data, dry_run=True)


def test_operations_with_servers_of_their_own_are_routes_of_their_own():
    item = {
        "get": {"operationId": "list"},
        "put": {"operationId": "upload", "servers": [{"url": "https://uploads.example/api/"}]},
        "post": {"operationId": "add", "servers": [{"url": "/relative"}]},
    }
    found = {wanted.values["name"]: wanted.values for wanted in openapi_routes(document(api({"/files": item})))}
    assert {name: (values["methods"], values["handler"]["url"]) for name, values in found.items()} == {
        "list": (["GET"], "https://up.example/files"),
        "upload": (["PUT"], "https://uploads.example/api/files"),
        "add": (["POST"], "https://up.example/relative/files"),
    }


@pytest.mark.parametrize(
    ("servers", "given", "url"),
    [
        (UP, "http://127.0.0.1:9000", "http://127.0.0.1:9000/a"),
        ([{"url": "/api/v3"}], "https://up.example", "https://up.example/api/v3/a"),
        ([{"url": "/api/v3"}], "https://up.example/base/", "https://up.example/base/a"),
        ([{"url": "https://{region}.example"}], "https://up.example", "https://up.example/a"),
        ([], "https://up.example", "https://up.example/a"),
        ([{"url": "/"}, {"url": "https://second.example"}], "", "https://second.example/a"),
    ],
)
def test_the_operator_names_the_upstream(servers, given, url):
    (route,) = openapi_routes(document(api({"/a": {"get": {}}}, servers=servers)), server=given)
    assert route.values["handler"]["url"] == url


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/Accounts/{Sid}.json", "/Accounts/{Sid}.json"),
        ("/v2/{+name}", "/v2/{name...}"),
        ("/{proxy+}", "/{proxy...}"),
        ("/{id}/copy/{id}", "/{id}/copy/{id_2}"),
        ("/{1st}/x", "/{_1st}/x"),
    ],
)
def test_parameters_of_other_dialects_are_read(written, path):
    (route,) = openapi_routes(document(api({written: {"get": {}}})))
    assert route.values["path"] == path


def test_only_what_matches_is_imported():
    paths = {"/v2/pets": {"get": {"operationId": "listPets"}}, "/v2/pets/{id}": {"get": {}}, "/other": {"get": {}}}
    for patterns, count in (("/v2/pets*",), 2), (("listPets", "/other"), 2), (("list*",), 1):
        assert len(openapi_routes(document(api(paths)), only=patterns)) == count


def test_files_beside_the_document_are_read_and_no_others(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "get.yaml").write_text("get: {operationId: fromFile, responses: {}}\n")
    (tmp_path / "up.yaml").write_text("get: {}\n")
    folder = tmp_path / "parts"
    paths = {"/a": {"$ref": "get.yaml"}, "/b": {"$ref": "../up.yaml"}, "/c": {"$ref": "https://x.example/y.yaml"}}
    (folder / "api.json").write_text(json.dumps(api(paths)))
    (folder / "out.yaml").symlink_to(tmp_path / "up.yaml")
    report = Report()
    import_paths = {"/d": {"$ref": "out.yaml"}, "/e": {"$ref": "none.yaml"}} | paths
    (folder / "api.json").write_text(json.dumps(api(import_paths)))
    from configuration.importers import openapi
    from configuration.yaml_documents import read

    (route,) = openapi.routes(read(folder / "api.json"), Options(), report)
    assert route.values["name"] == "fromFile"
    outside, missing, above, remote = report.skipped
    assert "out.yaml is outside the folder" in outside
    assert "none.yaml: no such file" in missing
    assert "../up.yaml is outside the folder" in above
    assert "is on another host; only files beside the document are read" in remote


@pytest.mark.django_db
def test_schemas_in_files_beside_the_document_are_copied(tmp_path):
    schemas = {
        "Order": {"type": "object", "properties": {"lines": {"items": {"$ref": "#/Line"}}}},
        "Line": {"type": "string"},
    }
    (tmp_path / "schemas.json").write_text(json.dumps(schemas))
    payload = {"$ref": "./schemas.json#/Order"}
    channels = {"orders": {"subscribe": {"message": {"payload": payload}}}}
    (tmp_path / "orders.json").write_text(json.dumps({"asyncapi": "2.0.0", "channels": channels}))
    import_file(tmp_path / "orders.json", by="ann")
    validator = compile_schema(Channel.objects.get().schema)
    assert validator.is_valid({"lines": ["a"]})
    assert not validator.is_valid({"lines": [5]})


def route_of(handler, *policies):
    return {"handler": handler, "policies": {"inbound": list(policies)}}


FORWARD = {"export": "urlForwardHandler", "module": "$import(@zuplo/runtime)", "options": {"baseUrl": "${env.BASE}/v2"}}
CODE = {"export": "default", "module": "$import(./modules/hello)"}
MCP = {"export": "mcpServerHandler", "module": "$import(@zuplo/runtime)", "options": {"name": "tools"}}


def gateway(**routes):
    paths = {f"/{name}": {"post": {"operationId": name, "x-zuplo-route": route}} for name, route in routes.items()}
    return {"openapi": "3.1.0", "info": {"title": "My Zuplo API", "version": "1"}, "paths": paths}


@pytest.mark.django_db
def test_code_of_zuplo_becomes_placeholders_that_are_listed_and_kept_once_replaced():
    """As in the examples of zuplo/zuplo: TypeScript handlers and policies, and MCP servers."""
    report = Report()
    data = gateway(hello=route_of(CODE, "credit-check"), tools=route_of(MCP, "api-key-inbound"))
    imported(data, "routes.oas.json", report=report)
    hello, tools = Route.objects.order_by("name")
    assert hello.handler == {"type": "placeholder", "name": "default of ./modules/hello"}
    assert [(policy["type"], policy["options"].get("name")) for policy in hello.policies] == [
        ("placeholder", "credit-check")
    ]
    assert tools.handler == {"type": "placeholder", "name": "mcpServerHandler"}
    assert len(report.placeholders) == 3
    real = {"type": "upstream", "url": "http://hello.example"}
    update_route(hello, handler=real, policies=[{"type": "api-key"}], by="bob")
    assert not imported(data, "routes.oas.json")
    hello.refresh_from_db()
    assert (hello.handler, hello.policies[0]["type"]) == (real, "api-key")
    with pytest.raises(DocumentError, match="credit-check is not supported"):
        imported(data, "routes.oas.json", is_strict=True)


def test_variables_of_zuplo_come_from_a_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# ours\nexport BASE='https://up.example'\n\nKEY=abc # secret\n")
    variables = read_variables(file)
    assert variables == {"BASE": "https://up.example", "KEY": "abc"}
    headers = [{"name": "X-Key", "value": "$env(KEY)"}]
    policy = {"name": "p", "policyType": "set-headers-inbound", "handler": {"options": {"headers": headers}}}
    data = gateway(a=route_of(FORWARD, "p")) | {"policies": [policy]}
    (route,) = zuplo_routes(document(data), variables=variables)
    assert route.values["handler"]["url"] == "https://up.example/v2/a"
    assert route.values["upstream_credential"] == {"header": "X-Key", "value": "abc"}
    (route,) = zuplo_routes(document(data))
    assert route.values["handler"]["type"] == route.values["policies"][0]["type"] == "placeholder"
    file.write_text("not a variable")
    with pytest.raises(DocumentError, match=r"\.env:1: must be NAME=value"):
        read_variables(file)


@pytest.mark.django_db
def test_the_policies_beside_a_zuplo_document_are_read(tmp_path):
    (tmp_path / "routes.oas.json").write_text(
        json.dumps(gateway(a=route_of({**FORWARD, "options": {"baseUrl": "https://up.example"}}, "small")))
    )
    small = {"name": "small", "policyType": "request-size-limit-inbound", "handler": {"options": {"maxSizeInBytes": 9}}}
    (tmp_path / "policies.json").write_text(json.dumps({"policies": [small]}))
    import_file(tmp_path / "routes.oas.json", by="manage.py import")
    assert Route.objects.get().policies[0]["options"] == {"max_bytes": 9}


@pytest.mark.django_db
def test_a_message_of_no_media_type_is_reported_and_its_channel_takes_bytes():
    report = Report()
    messages = {"m": {"contentType": "photo"}, "n": {"contentType": "image/*"}}
    data = {"asyncapi": "3.0.0", "channels": {"c": {"address": "a", "messages": messages}}}
    imported(data, report=report)
    assert Channel.objects.get().content_type == "bytes"
    assert [line.split(": ", 1)[1] for line in report.skipped] == [
        f"{text!r} is no media type; the channel takes bytes (at #/channels/c/messages/{name})"
        for name, text in (("m", "photo"), ("n", "image/*"))
    ]
    with pytest.raises(DocumentError, match="is no media type"):
        imported(data, is_strict=True)


@pytest.mark.django_db
def test_the_command_lists_what_it_skipped_and_its_placeholders(tmp_path, capsys):
    file = tmp_path / "routes.oas.json"
    data = gateway(hello=route_of(CODE))
    data["paths"]["/docs"] = data["paths"]["/hello"]
    file.write_text(json.dumps(data))
    call_command("import", str(file), "--dry-run")
    shown = capsys.readouterr().out
    assert "Skipped (1):" in shown
    assert "Placeholders, which refuse calls until they are replaced (1):" in shown
    with pytest.raises(CommandError, match="--prefix must be a path"):
        call_command("import", str(file), "--prefix", "/{x}")


def test_a_dotted_topic_of_kafka_has_a_level_for_each_part():
    """As in the example streetlights-kafka of asyncapi/spec."""
    from configuration.tests.imports import channels_of

    address = "smartylighting.streetlights.1.0.event.{streetlightId}.lighting.measured"
    channels = {"c": {"address": address}, "d": {"address": "plain.topic"}}
    assert list(channels_of({"asyncapi": "3.0.0", "channels": channels})) == [
        "smartylighting/streetlights/1/0/event/{streetlightId}/lighting/measured", "plain.topic"
    ]  # fmt: skip
