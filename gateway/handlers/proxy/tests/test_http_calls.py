"""What callers of routes get: who is let in, what is refused and how that is said, and what the upstream sees."""

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.credentials.api_keys import new_key
from gateway.protocol import Protocol
from gateway.protocols.http import accepted, prepare
from gateway.refusals import Refused
from gateway.tests.drivers import BY_THE_PATH
from gateway.tests.http_plane import PEPPER, ask, caller_of, echo, eventually, route, running, say, upstream_that
from gateway.wire.header_fields import OVERRIDES

PRIVATE_UPSTREAM = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{}\r\nok"


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def is_direct(request):
    """Return whether calls reach the path directly from the server, or through ASGI messages."""
    return request.param


def routes(url):
    return [
        route("echo", "/echo", f"{url}/echo"),
        route("rest", "/api/{version}/{rest...}", f"{url}/v{{version}}/{{rest}}?fixed=1"),
        route("rewritten", "/old/{id}", url, handler={"rewrite": "/new/{id}.json"}),
        route("read", "/read", f"{url}/read", methods=["GET"]),
        route("socket", "/socket", f"{url}/socket", protocol="websocket"),
    ]


@pytest.fixture
async def plane(behind, tmp_path, is_direct):
    async with running(tmp_path, routes(behind.url), is_direct=is_direct) as plane:
        yield plane


def is_problem(answer, status, reason):
    given = json.loads(answer.body)
    assert answer.header("content-type") == "application/problem+json"
    assert (given["status"], given["reason"]) == (status, reason)
    assert given["type"] == f"/docs/refusals#{reason}"
    assert given["title"]
    assert given["detail"]
    return answer.status == status


async def test_a_call_reaches_its_upstream_and_comes_back(plane, behind):
    answer = await ask(plane, "POST", "/echo?a=1&b=%20", body=b"hello")
    assert (answer.status, answer.body) == (200, b"/echo?a=1&b=%20 hello")
    assert plane.outcomes == [("ok", "")]


@pytest.mark.parametrize(
    ("requested", "seen"),
    [
        ("/api/1/a/b?q=1", "/v1/a/b?fixed=1&q=1"),
        ("/api/1/a", "/v1/a?fixed=1"),
        ("/api/1/a%20b/%C3%A9%3F", "/v1/a%20b/%C3%A9%3F?fixed=1"),
        ("/old/7?x=1", "/new/7.json?x=1"),
        ("/old/%7B", "/new/%7B.json"),
    ],
)
async def test_a_route_may_rewrite_the_path(plane, behind, requested, seen):
    assert (await ask(plane, "GET", requested)).body.decode() == seen + " "


@pytest.mark.parametrize(
    "path",
    ["/api/1/../2", "/api/1/%2e%2e/2", "/read%2fb", "/read/%2F", "/api/1/a%5cb", "/api/1/a%00b", "/api/1/a%0d%0ab", "/api/1/%ff",
     "/api/1/.", "/api/1/a%7fb", "/api/1/..;/2", "/api/1/..%3Ba=b/2", "/api/1/%252e%252e/2", "/api/1/..%255c2", "/api/1/%c0%ae."],
)  # fmt: skip
async def test_a_path_that_could_be_read_in_two_ways_is_refused(plane, behind, path):
    assert is_problem(await ask(plane, "GET", path), 400, "invalid-request")
    assert not behind.requests
    assert plane.outcomes == [("path-malformed", "protocol_error")]


@pytest.mark.parametrize(
    ("lines", "status", "reason", "cause"),
    [
        ([], 401, "unauthenticated", "credential-missing"),
        (["x-api-key: "], 401, "unauthenticated", "key-malformed"),
        (["x-api-key: nonsense"], 401, "unauthenticated", "key-malformed"),
        (["x-api-key: apim_123456789012_" + "a" * 38], 401, "unauthenticated", "key-malformed"),
        ([f"x-api-key: {new_key(PEPPER).text}"], 401, "unauthenticated", "key-unknown"),
        (["authorization: Bearer nonsense"], 401, "unauthenticated", "key-malformed"),
        (["authorization: Basic YTpi"], 401, "unauthenticated", "key-malformed"),
        (["authorization: Basic YTo="], 401, "unauthenticated", "credential-malformed"),
        (["authorization: Bearer"], 401, "unauthenticated", "credential-malformed"),
        (["authorization: Bearer a.b.c"], 401, "unauthenticated", "token-malformed"),
        (["x-api-key: k\u00e9y"], 401, "unauthenticated", "credential-malformed"),
        (["x-api-key: " + "a" * 10_240], 400, "invalid-request", "credential-malformed"),
        (["x-api-key: a", "authorization: Bearer b"], 400, "invalid-request", "credential-twice"),
        (["x-api-key: a", "x-api-key: b"], 400, "invalid-request", "credential-twice"),
    ],
)
async def test_who_cannot_be_proved_is_refused(plane, behind, lines, status, reason, cause):
    answer = await ask(plane, "GET", "/echo", *lines, key=None)
    assert is_problem(answer, status, reason)
    assert (answer.header("www-authenticate") is not None) is (status == 401)
    assert plane.outcomes[0][0] == cause
    assert not behind.requests


async def test_a_key_in_the_address_is_refused(plane, behind):
    answer = await ask(plane, "GET", f"/echo?key={plane.key.text}", key=None)
    assert is_problem(answer, 401, "unauthenticated")
    assert plane.key.text.encode() not in answer.body
    assert answer.header("referrer-policy") == "no-referrer"
    assert not behind.requests


async def test_a_revoked_key_looks_like_an_unknown_one(plane):
    unknown = await ask(plane, "GET", "/echo", f"x-api-key: {new_key(PEPPER).text}", key=None)
    revoked = {"id": plane.key.id, "consumer": "acme", "digest": plane.key.digest, "scopes": ["call:*"]}
    plane.snapshot.apply([("key", plane.key.id, {**revoked, "revoked_at": 1.0})])
    answer = await ask(plane, "GET", "/echo")
    assert (answer.status, answer.body) == (unknown.status, unknown.body)
    assert plane.outcomes == [("key-unknown", "handshake_auth"), ("key-revoked", "handshake_auth")]


async def test_wrong_keys_are_throttled(plane):
    async with caller_of(plane) as caller:
        statuses = [(await caller.ask("GET", "/echo", "x-api-key: guess", key=None)).status for _ in range(21)]
        assert statuses == [401] * 20 + [429]
        assert (await caller.ask("GET", "/echo")).status == 200


async def test_a_key_without_the_scope_is_refused(tmp_path, behind, is_direct):
    async with running(tmp_path, routes(behind.url), is_direct=is_direct, scopes=["call:other"]) as plane:
        assert is_problem(await ask(plane, "GET", "/echo"), 403, "forbidden")
        assert plane.outcomes == [("forbidden", "handshake_auth")]
    assert not behind.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "reason", "header"),
    [
        ("GET", "/nowhere", 404, "not-found", None),
        ("POST", "/read", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("OPTIONS", "/read", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("get", "/read", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("FROBNICATE", "/read", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("PROPFIND", "/v1/me", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("TRACE", "/read", 405, "method-not-allowed", ("allow", "GET, HEAD")),
        ("TRACE", "/echo", 501, "method-not-implemented", None),
        ("GET", "/socket", 426, "upgrade-required", ("upgrade", "websocket")),
    ],
)
async def test_what_is_not_served_is_refused(plane, method, path, status, reason, header):
    answer = await ask(plane, method, path)
    assert is_problem(answer, status, reason)
    assert header is None or answer.header(header[0]) == header[1]


async def test_head_is_answered_as_get_without_its_body(plane, behind):
    async with caller_of(plane) as caller:
        for path, status in (("/read", 200), ("/nowhere", 404), ("/echo", 200)):
            answer = await caller.ask("HEAD", path)
            assert answer.status == status
        assert (await caller.ask("GET", "/echo")).body == b"/echo "


async def test_limits_are_said_in_every_answer(tmp_path, behind, is_direct):
    limits = [{"name": "calls", "metric": "requests", "amount": 2, "per": 3600, "burst": 2, "scope": "consumer",
               "exceed": "reject", "mode": "enforce", "fail": "open"}]  # fmt: skip
    async with running(tmp_path, routes(behind.url), is_direct=is_direct, limits=limits) as plane:
        answers = [await ask(plane, "GET", "/echo") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert is_problem(answers[2], 429, "rate-limited")
        assert int(answers[2].header("retry-after")) > 0
        assert json.loads(answers[2].body)["violated-policies"] == ["requests-per-3600s"]
        assert all(answer.header("ratelimit-policy") and answer.header("ratelimit") for answer in answers)
        assert len(behind.requests) == 2


async def test_the_upstream_sees_who_calls_and_nothing_that_pretends_to_be_us(plane, behind):
    await ask(
        plane, "GET", "/echo",
        "X-Consumer-Name: boss", "x-consumer-tier: gold", "x_consumer_name: boss", "X-Forwarded-For: 9.9.9.9",
        "X-Forwarded-Host: evil", "x-forwarded-proto: https", "X-Real-IP: 9.9.9.9", "Forwarded: for=9.9.9.9",
        "Connection: keep-alive, X-Secret", "X-Secret: 1", "Keep-Alive: timeout=5", "TE: gzip",
        "Proxy-Authorization: Basic YTpi", "Trailer: x", "X-Kept: yes", "CF-Connecting-IP: 9.9.9.9",
        "Cookie: a=1; sessionid=operators; csrftoken=theirs; mysessionid=2",
    )  # fmt: skip
    (requested,) = behind.requests
    names = [name for name, _ in requested.headers]
    assert requested.header("x-consumer-name") == ["acme"]
    assert requested.header("x-consumer-key") == [plane.key.id]
    assert requested.header("x-consumer-tier") == ["free"]
    assert requested.header("x-forwarded-for") == ["127.0.0.1"]
    assert requested.header("x-forwarded-host") == ["gateway.test"]
    assert requested.header("x-forwarded-proto") == ["http"]
    assert requested.header("x-forwarded-port") == ["80"]
    assert requested.header("forwarded") == ["for=127.0.0.1;host=gateway.test;proto=http"]
    assert (requested.header("x-kept"), requested.header("cookie")) == (["yes"], ["a=1; mysessionid=2"])
    assert len(names) == len(set(names))
    assert not set(names) & {"x-api-key", "authorization", "x-secret", "keep-alive", "te",
                             "x-real-ip", "x_consumer_name", "proxy-authorization", "trailer", "connection", "cf-connecting-ip"}  # fmt: skip
    assert plane.key.text not in str(requested.headers)


@pytest.mark.parametrize("name", sorted(OVERRIDES))
async def test_a_header_that_overrides_the_request_is_dropped_unless_the_route_asks(tmp_path, behind, is_direct, name):
    asking = route("asking", "/asking", behind.url, handler={"override_headers": [name]})
    async with running(tmp_path, [*routes(behind.url), asking], is_direct=is_direct) as plane:
        lines = [
            f"{spelling}: /admin"
            for spelling in (name.title(), name.replace("-", "_"), name.replace("-", "."), f"x!{name}")
        ]
        for path in ("/echo", "/asking"):
            await ask(plane, "GET", path, *lines, "Proxy: evil.test")
    values = [
        [value for _, value in requested.headers if value in ("/admin", "evil.test")] for requested in behind.requests
    ]
    assert values == [[], ["/admin"]]
    assert behind.requests[1].header(name) == ["/admin"]


async def test_an_invalid_host_is_refused_whichever_server_runs(tmp_path, behind):
    async with running(tmp_path, routes(behind.url), is_direct=False) as plane:
        call = accepted(plane, Protocol.HTTP, "GET", b"/echo", b"", [(b"host", b"user@gateway.test")], "192.0.2.1")
        with pytest.raises(Refused) as caught:
            prepare(plane, call)
    assert (caught.value.status, caught.value.cause) == (400, "malformed-request")


async def test_a_header_that_the_connection_claims_is_no_override(tmp_path, behind):
    asking = route("asking", "/asking", behind.url, handler={"override_headers": ["x-http-method"]})
    async with running(tmp_path, [asking]) as plane:
        await ask(plane, "GET", "/asking", "connection: x-http-method", "x-http-method: DELETE")
    assert not behind.requests[0].header("x-http-method")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "seen"),
    [
        ([], ["1.1.1.1"], "127.0.0.1"),
        (["127.0.0.0/8"], ["1.1.1.1"], "1.1.1.1"),
        (["127.0.0.0/8"], ["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
        (["127.0.0.0/8", "10.0.0.0/8"], ["9.9.9.9, 1.1.1.1", "10.0.0.1"], "1.1.1.1"),
        (["127.0.0.0/8"], ["1.1.1.1, nonsense"], "127.0.0.1"),
        (["127.0.0.0/8"], [], "127.0.0.1"),
        (["127.0.0.0/8"], ["2001:db8::1"], "2001:db8::1"),
        (["127.0.0.0/8"], ["::ffff:1.1.1.1"], "1.1.1.1"),
    ],
)
async def test_forwarded_addresses_are_believed_from_configured_proxies_alone(
    tmp_path, behind, is_direct, trusted, forwarded, seen
):
    networks = tuple(ip_network(network) for network in trusted)
    async with running(tmp_path, routes(behind.url), is_direct=is_direct, trusted_proxies=networks) as plane:
        await ask(plane, "GET", "/echo", *(f"x-forwarded-for: {value}" for value in forwarded))
    assert behind.requests[0].header("x-forwarded-for") == [seen]


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("::ffff:10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("::ffff:192.0.2.1", b"1.1.1.1", "192.0.2.1"),
        ("2001:db8::1", b"1.1.1.1", "2001:db8::1"),
    ],
)
async def test_callers_over_ipv4_are_known_where_we_listen_on_ipv6(plane, peer, forwarded, seen):
    plane.config = replace(plane.config, trusted_proxies=(ip_network("10.0.0.0/8"),))
    headers = [(b"x-forwarded-for", forwarded)]
    assert accepted(plane, Protocol.HTTP, "GET", b"/echo", b"", headers, peer).ip == seen


@pytest.mark.parametrize(
    ("given", "header", "value"),
    [
        ("", "cache-control", "private"),
        ("cache-control: public, max-age=60\r\n", "vary", "Authorization, X-API-Key"),
    ],
)
async def test_what_is_answered_to_one_key_is_not_for_another(tmp_path, is_direct, given, header, value):
    async with upstream_that(say(PRIVATE_UPSTREAM.format(given))) as behind:
        async with running(tmp_path, [route("r", "/r", behind.url)], is_direct=is_direct) as plane:
            assert (await ask(plane, "GET", "/r")).header(header) == value


async def test_headers_of_the_upstreams_connection_stay_there(tmp_path, is_direct):
    given = "connection: keep-alive, x-inner\r\nx-inner: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\nupgrade: h2c\r\n"
    async with upstream_that(say(PRIVATE_UPSTREAM.format(given))) as behind:
        async with running(tmp_path, [route("r", "/r", behind.url)], is_direct=is_direct) as plane:
            answer = await ask(plane, "GET", "/r")
    names = {name for name, _ in answer.headers}
    assert "x-kept" in names
    assert not names & {"x-inner", "keep-alive", "upgrade"}


async def test_a_preflight_of_our_own_addresses_is_answered_without_a_key(plane, behind):
    for path in ("/v1/me", "/v1/events?channel=trades"):
        answer = await ask(
            plane, "OPTIONS", path, "origin: https://a.test", "access-control-request-method: GET", key=None
        )
        assert (answer.status, answer.header("access-control-allow-origin")) == (204, "*")
        assert "Last-Event-ID" in answer.header("access-control-allow-headers")
    assert not behind.requests
    assert not plane.outcomes


async def test_pages_of_any_origin_may_read_our_own_answers(plane):
    for key in ("", None):
        answer = await ask(plane, "GET", "/v1/me", "origin: https://a.test", key=key)
        assert answer.header("access-control-allow-origin") == "*"


async def test_a_body_that_is_too_large_is_refused(tmp_path, behind, is_direct):
    async with running(tmp_path, routes(behind.url), is_direct=is_direct, body_max_bytes=1000) as plane:
        for lines, body in ((("content-length: 1001",), bytes(1001)), (("transfer-encoding: chunked",), b"3e9\r\n" + bytes(1001))):  # fmt: skip
            async with caller_of(plane) as caller:
                caller.send(caller.head("POST", "/echo", *lines) + body)
                assert is_problem(await caller.answer(), 413, "too-large")
                assert await caller.is_closed()
        assert (await ask(plane, "POST", "/echo", body=bytes(1000))).status == 200
        assert plane.outcomes.count(("too-large", "protocol_error")) == 2


async def test_a_draining_gateway_takes_nothing_more(plane, behind):
    plane.draining = True
    async with caller_of(plane) as caller:
        answer = await caller.ask("GET", "/echo")
        assert is_problem(answer, 503, "draining")
        assert answer.header("retry-after") == "1"
        assert await caller.is_closed()


async def test_what_is_under_way_is_finished_before_the_server_stops(tmp_path, is_direct):
    may_answer = asyncio.Event()

    async def slow(requested, reader, writer):
        await may_answer.wait()
        await echo(requested, reader, writer)

    async with (
        upstream_that(slow) as behind,
        running(tmp_path, [route("r", "/r", f"{behind.url}/r")], is_direct=is_direct, is_drained=True) as plane,
        caller_of(plane) as caller,
        caller_of(plane) as idle,
    ):
        caller.send(caller.head("GET", "/r"))
        await eventually(lambda: behind.requests)
        plane.server.should_exit = True
        assert await idle.is_closed()
        may_answer.set()
        answer = await caller.answer()
        assert (answer.body, answer.header("connection")) == (b"/r ", "close")
        assert plane.outcomes == [("ok", "")]


@BY_THE_PATH
async def test_a_fault_of_ours_is_logged_and_tells_nothing(plane, caplog):
    async def broken(plane_, call):
        raise RuntimeError("secret detail")

    plane.handlers = {"upstream": broken}
    answer = await ask(plane, "GET", "/echo")
    assert is_problem(answer, 500, "internal")
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text
    assert plane.outcomes == [("internal", "internal")]
