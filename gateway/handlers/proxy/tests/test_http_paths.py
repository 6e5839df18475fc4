"""Paths: what was matched is what is sent, byte for byte; encoded slashes are kept where the route says so."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.handlers.proxy.target import target_of
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE
from gateway.protocol import Protocol
from gateway.protocols.http import prepare
from gateway.refusals import Refused
from gateway.snapshot.picture import Snapshot
from gateway.tests.hooks_of_tests import CALLS
from gateway.tests.http_plane import ask, route, running
from gateway.tests.policed import HOOKS, policy

AS_THEY_CAME = [
    "a%2Bb%3Bc%26d%3De%2Cf%3Ag%40h%24", "%2b%3b%26", "%7Euser~", "a+b;c&d=e,f:g@h$i!'()*", "caf%C3%A9", "caf%c3%A9",
    "%F0%9F%98%80", "100%", "%", "a%zz", "%41%62", "a%20b", "%22%3C%3E", '"<>|^`{}', "%25", "%252F", "%2525", "a%3Fb%23c",
    "[::1]", "@types", "%40types", "a//b", "a/", "x=1%3B%20y",
]  # fmt: skip


@pytest.fixture
async def plane(tmp_path, behind):
    url = behind.url
    routes = [
        route("api", "/api/{rest...}", f"{url}/v1/{{rest}}"),
        route("admin", "/api/admin/{action}", f"{url}/v1/admin/{{action}}", methods=["GET"]),
        route("one", "/one/{id}", f"{url}/one/{{id}}"),
        route("file", "/file/{name}.json", f"{url}/file/{{name}}.txt"),
        route("models", "/models/{model}/{version}", f"{url}/m/{{version}}/{{model}}", encoded_slashes="keep"),
        route("strict", "/strict/{rest...}", url + "/{rest}", encoded_slashes="refuse"),
        route("own", "/{rest...}", url + "/own/{rest}"),
        route("socket", "/ws/{rest...}", url.replace("http", "ws") + "/{rest}", protocol="websocket"),
    ]
    async with running(tmp_path, routes) as plane:
        yield plane


@pytest.mark.parametrize("sent", AS_THEY_CAME)
async def test_a_path_reaches_the_upstream_as_it_came(plane, behind, sent):
    """As Kong/kong#688, apache/apisix#5654 and dotnet/yarp#1219 have it: reserved characters are data."""
    assert (await ask(plane, "GET", f"/api/{sent}")).status == 200
    assert behind.requests[-1].target == f"/v1/{sent}"
    if "/" not in sent:
        for path, seen in ((f"/one/{sent}", f"/one/{sent}"), (f"/file/{sent}.json", f"/file/{sent}.txt")):
            await ask(plane, "GET", path)
            assert behind.requests[-1].target == seen


@pytest.mark.parametrize("query", ["?", "?a=%2B+%2f", "??", "?a&b=&=", "?a=100%", "?a=1?b=2", ""])
async def test_a_query_reaches_the_upstream_as_it_came(plane, behind, query):
    await ask(plane, "GET", f"/one/x{query}")
    assert behind.requests[-1].target == f"/one/x{query}"


@pytest.mark.parametrize("query", ["?", "?a=%2B", "??", ""])
async def test_a_query_of_a_handshake_does_too(plane, behind, query):
    await ask(plane, "GET", f"/ws/x{query}", *HANDSHAKE)
    assert behind.requests[-1].target == f"/x{query}"


async def test_text_of_the_route_is_matched_in_any_spelling_and_sent_as_the_route_has_it(plane, behind):
    await ask(plane, "GET", "/%6Fne/%61%2B")
    assert behind.requests[-1].target == "/one/%61%2B"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/api/@types%2Fnode", "/v1/@types%2Fnode"),
        ("/api/org%2fmodel/infer", "/v1/org%2fmodel/infer"),
        ("/api/%2F%2F", "/v1/%2F%2F"),
        ("/models/org%2Fmodel/v%2B1", "/m/v%2B1/org%2Fmodel"),
        ("/api/a%252Fb", "/v1/a%252Fb"),
        ("/%2Fx", "/own/%2Fx"),
    ],
)
async def test_an_encoded_slash_is_kept_where_the_route_says_so(plane, behind, path, seen):
    """As npm/npm#16380, envoyproxy/gateway#7084 and apache/apisix/pull/13626 want it: a catch-all does by default."""
    assert (await ask(plane, "GET", path)).status == 200
    assert behind.requests[-1].target == seen


@pytest.mark.parametrize(
    "path",
    [
        "/one/a%2Fb", "/strict/a%2fb", "/api/admin%2Fdelete", "/api%2Fadmin/delete", "/%61pi/%61dmin%2fdelete", "/v1%2Fme",
        "/v1%2Fchannels%2Fa%2Fevents", "/models%2Forg%2Fmodel", "/models/a%2F..%2Fb/v", "/api/..%2Fx", "/api/a%2f%2e%2e/b",
        "/api/a%2F..;x/b", "/api/a%2F%252e%252e%252Fb", "/api/a%5c..%5cb",
    ],
)  # fmt: skip
async def test_an_encoded_slash_reaches_past_no_route(plane, behind, path):
    """The upstream may take it for a slash: it must then be under the same rights and policies."""
    for method in ("GET", "POST"):
        answer = await ask(plane, method, path)
        assert (answer.status, json.loads(answer.body)["reason"]) == (400, "invalid-request")
    assert not behind.requests


async def test_a_method_that_the_more_specific_route_lacks_is_no_way_round_it(plane, behind):
    assert (await ask(plane, "POST", "/api/admin/delete")).status == 405
    assert (await ask(plane, "POST", "/api/admin%2Fdelete")).status == 400
    assert not behind.requests


@pytest.mark.usefixtures("operators_module")
async def test_hooks_see_the_decoded_path(tmp_path, behind):
    hook = policy("custom", function=f"{HOOKS}:recording")
    routes = [route("api", "/api/{rest...}", f"{behind.url}/{{rest}}", policies=[hook])]
    async with running(tmp_path, routes) as plane:
        assert (await ask(plane, "GET", "/api/%40a%2Fb/%252F")).status == 200
    call, *_ = CALLS[-1]
    assert (call.path, dict(call.parameters)) == ("/api/@a/b/%2F", {"rest": "@a/b/%2F"})
    assert behind.requests[-1].target == "/%40a%2Fb/%252F"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_length_of_zero_reaches_the_upstream(plane, behind, method):
    """As Esri/resource-proxy#370 and rustdesk/rustdesk/pull/13940 have it: servers answer 411 without."""
    await ask(plane, method, "/one/x", "content-length: 0")
    assert behind.requests[-1].header("content-length") == ["0"]
    await ask(plane, method, "/one/x")
    assert behind.requests[-1].header("content-length") == []


PLANE: Any = SimpleNamespace(
    draining=False,
    config=SimpleNamespace(trace_start=False),
    snapshot=Snapshot.from_documents({"route": [route("api", "/api/{rest...}", "http://up.test/v1/{rest}")]}),
)
SEGMENTS = st.lists(
    st.sampled_from(["a", "%2B", "%2b", "+", "%C3%A9", "%25", "%", ";", "@", "%40", "=", "/", "%2F", "%2e", ".", "é", "%F0%9F%98%80"]),
    max_size=10,
).map("".join)  # fmt: skip


@given(SEGMENTS)
def test_whatever_is_accepted_is_sent_as_it_came(text):
    raw = f"/api/{text}".encode()
    call = Call(Protocol.HTTP, "", "192.0.2.1", raw_path=raw, headers=[])
    try:
        prepare(PLANE, call)
    except Refused:
        return
    assert call.route.name == "api"
    assert target_of(call.route).path_for(call) == f"/v1/{text}"
