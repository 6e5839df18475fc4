import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from gateway.contracts import openapi
from gateway.contracts.operations import OPERATIONS
from gateway.contracts.view import PublicUrls, View
from gateway.durable.readers import BATCH_MAX
from gateway.handlers.pull import WAIT_MAX_S
from gateway.handlers.subscription import FIELDS
from gateway.link.nats import ATTEMPTS_KEPT
from gateway.snapshot.endpoints import CHANNEL_EVENTS, ENDPOINTS
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.tests.event_plane import channel

WHERE = PublicUrls("https://api.example")


def route(name, path, **more):
    upstream = {"type": "upstream", "url": "http://up.example/"}
    return {"name": name, "path": path, "methods": [], "protocol": "http", "handler": upstream, **more}


def document(*routes, scopes=("*",), ceiling=None, channels=(), inputs=None):
    snapshot = Snapshot.from_documents({"route": routes, "channel": channels})
    caller = Principal(consumer="acme", key="k", tier="free", scopes=scopes, ceiling=ceiling)
    view = View(caller, WHERE, tuple(snapshot.channels()), tuple(snapshot.routes()), inputs=inputs or {})
    written = openapi.build_openapi(view)
    written = json.loads(json.dumps(written))
    validator = OpenAPIV32SpecValidator if written["openapi"] == "3.2.0" else OpenAPIV31SpecValidator
    assert list(validator(written).iter_errors()) == []
    return written


def methods_of(written, path):
    return {name for name in written["paths"][path] if name != "parameters"}


def test_a_key_sees_the_routes_that_it_may_call_and_nothing_of_others():
    routes = (route("quotes", "/quotes/{symbol}", methods=["GET"]), route("hidden", "/hidden"))
    written = document(*routes, scopes=("call:quotes",))
    assert "/quotes/{symbol}" in written["paths"]
    assert "hidden" not in json.dumps(written["paths"])
    assert "up.example" not in json.dumps(written)


def test_a_right_to_one_operation_of_a_route_shows_the_route():
    written = document(route("tools", "/mcp", methods=["POST"]), scopes=("call:tools#tools/call:*",))
    assert methods_of(written, "/mcp") == {"post"}
    written = document(route("tools", "/mcp"), scopes=("call:tools#tools/call:*",), ceiling=("call:quotes",))
    assert "/mcp" not in written["paths"]
    written = document(route("tools", "/mcp"), scopes=("call:tools#tools/call:*",), ceiling=("call:tools#*",))
    assert "/mcp" in written["paths"]


def test_every_address_of_ours_is_described():
    written = document()
    operations = [
        operation for item in written["paths"].values() for method, operation in item.items() if method != "parameters"
    ]
    assert len(operations) == len({*ENDPOINTS, *CHANNEL_EVENTS})
    ids = {operation["operationId"].removeprefix("v1.") for operation in operations}
    assert ids == {endpoint.handler for endpoint in (*ENDPOINTS, *CHANNEL_EVENTS)}
    assert all(operation["summary"] for operation in operations)
    assert written["paths"]["/v1/jobs/{id}/result"]["get"]["security"] == []


def test_every_described_operation_is_one_of_an_existing_endpoint():
    assert set(OPERATIONS) <= {endpoint.handler for endpoint in (*ENDPOINTS, *CHANNEL_EVENTS)}


def test_addresses_whose_right_a_key_lacks_are_left_out():
    written = document(scopes=("subscribe:a",))
    assert methods_of(written, "/v1/channels/{address}/events") == {"get"}
    assert "/v1/jobs/{type}" not in written["paths"]
    assert "/v1/me" in written["paths"]


def test_routes_that_differ_in_the_names_of_parameters_share_a_path():
    written = document(
        route("one", "/a/{id}", methods=["GET"]),
        route("two", "/a/{name}", methods=["PUT"]),
        route("live", "/a/{x}", methods=["GET"], protocol="websocket"),
        route("rest", "/files/{rest...}", methods=["GET"]),
    )
    (path,) = (path for path in written["paths"] if path.startswith("/a/"))
    assert methods_of(written, path) == {"get", "put"}
    assert "101" in written["paths"][path]["get"]["responses"]
    assert written["paths"]["/v1/jobs/{type}"]["parameters"][0]["description"] == "For GET: `id`. For DELETE: `id`."
    assert written["paths"]["/files/{rest}"]["parameters"][0]["name"] == "rest"


def test_bodies_are_described_by_the_policy_or_the_channel_that_judges_them():
    schema = {"$defs": {"n": {"type": "number"}}, "properties": {"n": {"$ref": "#/$defs/n"}}}
    policies = [{"type": "validate", "options": {"schema": schema, "outbound_schema": {"type": "array"}}}]
    shadowed = [{"type": "validate", "options": {"schema": schema}, "mode": "shadow"}]
    written = document(
        route("strict", "/strict", methods=["POST"], policies=policies),
        route("lax", "/lax", methods=["POST"], policies=shadowed),
        route("into", "/into", methods=["POST"], handler={"type": "channel", "channel": "a"}),
        route("work", "/work", methods=["POST"], handler={"type": "job", "job_type": "reports"}),
        channels=[channel("a", schema={"type": "string"})],
    )

    def body(path):
        return written["paths"][path]["post"]["requestBody"]["content"]

    assert body("/strict")["application/json"]["schema"] == {"$ref": "#/components/schemas/strict-body"}
    carried = written["components"]["schemas"]["strict-body"]
    assert carried["properties"]["n"] == {"$ref": "#/components/schemas/strict-body/$defs/n"}
    answer = written["paths"]["/strict"]["post"]["responses"]["2XX"]
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/strict-answer"}
    assert answer["content"]["*/*"] == {}, "the policy looks at JSON alone"
    assert body("/lax") == {"*/*": {}}
    assert body("/into")["application/json"]["schema"] == {"$ref": "#/components/schemas/into-body"}
    assert "202" in written["paths"]["/work"]["post"]["responses"]


def test_a_route_in_place_of_an_address_of_ours_is_what_is_described():
    written = document(
        route("mine", "/v1/me", methods=["GET"], reserved_override=True),
        route("news", "/news", protocol="sse", methods=["GET"], handler={"type": "channel", "channel": "news"}),
    )
    assert written["paths"]["/v1/me"]["get"]["x-route"] == "mine"
    named = {parameter["name"] for parameter in written["paths"]["/news"]["get"]["parameters"]}
    assert "from" in named
    assert "channel" not in named
    assert "text/event-stream" in written["paths"]["/news"]["get"]["responses"]["200"]["content"]


def test_what_a_proxied_route_answers_is_the_upstreams():
    written = document(
        *(route(protocol, f"/{protocol}", protocol=protocol, methods=["GET"]) for protocol in ("http", "sse")),
        route("ws", "/ws", protocol="websocket", methods=["GET"]),
        route("work", "/work", methods=["POST"], handler={"type": "job", "job_type": "reports"}),
    )
    for path in ("/http", "/sse", "/ws"):
        responses = written["paths"][path]["get"]["responses"]
        assert responses["2XX"]["content"] == {"*/*": {}}
        assert responses["default"]["content"] == {"*/*": {}}
        assert "429" not in responses, "its fields are those of the upstream"
    assert "2XX" not in written["paths"]["/work"]["post"]["responses"]
    assert "429" in written["paths"]["/work"]["post"]["responses"]


def parameters(written, path, method="get"):
    item = written["paths"][path]
    found = [*item.get("parameters", ()), *item[method].get("parameters", ())]
    return {parameter["name"]: parameter for parameter in found}


def test_parameters_have_the_bounds_that_are_enforced():
    written = document()
    history = parameters(written, "/v1/channels/{address}/events")
    assert history["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000}
    assert re.search(history["after"]["schema"]["pattern"], "x") is None
    events = parameters(written, "/v1/events")
    assert events["channel"]["required"]
    assert (events["channel"]["schema"]["minItems"], events["channel"]["schema"]["maxItems"]) == (1, 50)
    assert parameters(written, "/v1/me")["n"]["schema"]["maximum"] == 10**9
    pulled = parameters(written, "/v1/subscriptions/{id}/events")
    assert (pulled["limit"]["schema"]["maximum"], pulled["wait_s"]["schema"]["maximum"]) == (BATCH_MAX, WAIT_MAX_S)
    attempts = parameters(written, "/v1/subscriptions/{id}/attempts")
    assert attempts["limit"]["schema"]["maximum"] == ATTEMPTS_KEPT
    for id_ in ("..", ".", "a/b", "a\\b", "\x07", "..;x"):
        assert re.search(pulled["id"]["schema"]["pattern"], id_) is None


def test_bodies_of_the_gateways_own_paths_refuse_unknown_members():
    written = document()
    for path, method in (
        ("/v1/tickets", "post"),
        ("/v1/subscriptions", "post"),
        ("/v1/subscriptions/{id}", "patch"),
        ("/v1/subscriptions/{id}/ack", "post"),
        ("/v1/subscriptions/{id}/rotate", "post"),
    ):
        body = written["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
        assert body["additionalProperties"] is False, path
    new = written["paths"]["/v1/subscriptions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(new["properties"]) == {*FIELDS, "from"}


SEGMENTS = st.sampled_from(["a", "b-c", "{id}", "{name}", "ü", "$x", ""])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).filter(
    lambda segments: len([one for one in segments if "{" in one]) == len({one for one in segments if "{" in one})
)
ROUTES = st.fixed_dictionaries(
    {
        "path": PATHS.map(lambda segments: "/" + "/".join(segments)),
        "protocol": st.sampled_from(["http", "sse", "websocket"]),
    },
    optional={
        "methods": st.lists(
            st.sampled_from(["GET", "POST", "DELETE", "QUERY", "PROPFIND", "*"]), unique=True, min_size=1
        ),
        "policies": st.sampled_from(
            [
                [{"type": "validate", "options": {"schema": schema}}]
                for schema in (
                    {"type": "object"},
                    {"discriminator": "x"},
                    {"$id": "https://x.example/"},
                    {"minimum": "no"},
                )
            ]
        ),
    },
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROUTES, max_size=4))
def test_the_document_of_any_routes_is_valid(routes):
    document(*({**route(f"r{number}", ""), **fields} for number, fields in enumerate(routes)))
