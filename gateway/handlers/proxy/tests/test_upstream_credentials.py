"""Which credentials reach an upstream: those meant for it, and never one of the gateway (Kong/kong#4353)."""

import base64
import json

import pytest

from gateway.credentials.api_keys import new_key
from gateway.credentials.sealed import seal
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, echo_messages, sockets_that
from gateway.snapshot.documents import credential_purpose
from gateway.tests.http_plane import ask, caller_of, route, running

SECRET_KEY = b"secret"
"""Of the planes of these tests."""
FOR_UPSTREAM = "authorization: Bearer sk-for-the-upstream"


def sealed(name, header="authorization", value="Bearer sk-of-the-route"):
    secret = json.dumps({"header": header, "value": value}).encode()
    return seal(SECRET_KEY, credential_purpose(name), secret)


def basic(key):
    return "authorization: Basic " + base64.b64encode(f"me:{key}".encode()).decode()


@pytest.fixture
async def plane(behind, tmp_path):
    url = behind.url
    routes = [
        route("kept", "/kept", url, upstream_authorization="keep"),
        route("dropped", "/dropped", url),
        route("own", "/own", url, sealed_credential=sealed("own")),
        route("named", "/named", url, sealed_credential=sealed("named", "x-token", "t")),
        route("both", "/both", url, upstream_authorization="keep", sealed_credential=sealed("both", "x-token", "t")),
        route("moved", "/moved", url, sealed_credential=sealed("own")),
    ]
    async with running(tmp_path, routes) as plane:
        yield plane


async def seen(plane, behind, path, *lines, key="", name="authorization"):
    answer = await ask(plane, "GET", path, *lines, key=key)
    assert answer.status == 200, answer.body
    assert plane.key.text not in str(behind.requests[-1].headers)
    return behind.requests[-1].header(name)


async def test_an_authorization_beside_our_key_is_the_upstreams_where_the_route_keeps_it(plane, behind):
    assert await seen(plane, behind, "/kept", FOR_UPSTREAM) == ["Bearer sk-for-the-upstream"]
    assert await seen(plane, behind, "/both", FOR_UPSTREAM) == ["Bearer sk-for-the-upstream"]
    assert await seen(plane, behind, "/kept", "authorization: AWS4-HMAC-SHA256 Credential=a") == [
        "AWS4-HMAC-SHA256 Credential=a"
    ]
    twice = await ask(plane, "GET", "/dropped", FOR_UPSTREAM)
    assert (twice.status, json.loads(twice.body)["reason"]) == (400, "invalid-request")


async def test_our_own_credential_never_reaches_the_upstream(plane, behind):
    key = plane.key.text
    for line in (f"authorization: Bearer {key}", basic(key), f"authorization: bearer  {key} ", basic(key).rstrip("=")):
        assert await seen(plane, behind, "/kept", line) == []
        assert behind.requests[-1].header("x-api-key") == []
    other = plane.other_key.text
    assert await seen(plane, behind, "/kept", f"authorization: Bearer {other}") == []
    for line in (f"authorization: Bearer {key}", basic(key)):
        assert await seen(plane, behind, "/kept", line, key=None) == []


async def test_without_a_key_of_ours_an_authorization_is_judged_as_everywhere(plane, behind):
    answer = await ask(plane, "GET", "/kept", FOR_UPSTREAM, key=None)
    assert answer.status == 401
    assert behind.requests == []


async def test_a_routes_credential_replaces_what_the_caller_sends(plane, behind):
    key = f"authorization: Bearer {plane.key.text}"
    assert await seen(plane, behind, "/own", key, key=None) == ["Bearer sk-of-the-route"]
    assert await seen(plane, behind, "/named", "x-token: mine", name="x-token") == ["t"]
    assert await seen(plane, behind, "/both", FOR_UPSTREAM, name="x-token") == ["t"]


async def test_an_authorization_beside_our_key_is_dropped_where_the_route_sends_its_own(plane, behind):
    for line in (FOR_UPSTREAM, "authorization: Digest a=b", basic(plane.other_key.text), "authorization: \xe9"):
        assert await seen(plane, behind, "/own", line) == ["Bearer sk-of-the-route"]
    assert await seen(plane, behind, "/own", FOR_UPSTREAM, FOR_UPSTREAM) == ["Bearer sk-of-the-route"]
    twice = await ask(plane, "GET", "/named", FOR_UPSTREAM)
    assert (twice.status, json.loads(twice.body)["reason"]) == (400, "invalid-request")
    wrong = await ask(
        plane, "GET", "/own", f"authorization: Bearer {plane.key.text}", f"x-api-key: {new_key(b'').text}", key=None
    )
    assert wrong.status == 401


async def test_our_key_passes_in_no_header_and_no_cookie_of_any_name(plane, behind):
    key = plane.key.text
    lines = (
        f"x-other: {key}", f"referer: https://page.test/?k={key}", f"user-agent: a ({key}) b", f"x-more: a, {key}",
        f"cookie: a=1; k={key}; b=2", f"cookie: {key}", "x-kept: yes",
        f"via: 1.1 {key}", f"max-forwards: {key}",
    )  # fmt: skip
    for path in ("/dropped", "/kept", "/own"):
        for _ in range(3):
            assert await seen(plane, behind, path, *lines, name="x-kept") == ["yes"]
            assert [
                header for header in behind.requests[-1].headers if header[0] in ("cookie", "referer", "max-forwards")
            ] == [("cookie", "a=1; b=2")]
    token = f"authorization: {basic(key).partition(' ')[2]}"
    assert await seen(plane, behind, "/dropped", token, f"x-other: {key}", key=None, name="x-other") == []


async def test_a_credential_that_cannot_be_decrypted_refuses_the_call(plane, behind):
    answer = await ask(plane, "GET", "/moved")
    assert (answer.status, json.loads(answer.body)["reason"]) == (502, "upstream-unavailable")
    assert b"sk-of-the-route" not in answer.body
    assert behind.requests == []


async def test_a_handshake_has_the_same_credentials(tmp_path):
    async with sockets_that(echo_messages) as behind:
        url = f"ws://127.0.0.1:{behind.port}/"
        routes = [
            route("kept", "/kept", url, protocol="websocket", upstream_authorization="keep"),
            route("own", "/own", url, protocol="websocket", sealed_credential=sealed("own")),
        ]
        async with running(tmp_path, routes) as plane:
            key = plane.key.text
            subprotocol = f"sec-websocket-protocol: bearer, {key}"
            for path, *lines in (
                ("/kept", f"x-api-key: {key}", FOR_UPSTREAM), ("/kept", subprotocol, FOR_UPSTREAM),
                ("/kept", f"authorization: Bearer {key}"), ("/own", f"authorization: Bearer {key}"),
                ("/own", subprotocol, FOR_UPSTREAM, f"x-other: {key}"),
            ):  # fmt: skip
                async with caller_of(plane) as caller:
                    caller.send(caller.head("GET", path, *HANDSHAKE, *lines, key=None))
                    assert (await caller.answer_head()).status == 101
        sent = [request.headers.get_all("authorization") for request in behind.requests]
        assert sent == [["Bearer sk-for-the-upstream"]] * 2 + [[]] + [["Bearer sk-of-the-route"]] * 2
        assert not any(key in str(list(request.headers.raw_items())) for request in behind.requests)
