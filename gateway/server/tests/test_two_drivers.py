"""A carried call and one that takes the path come to the same: response, request upstream and usage, byte for byte."""

import json
import random
import re
from ipaddress import ip_network

import pytest

from gateway.credentials.sealed import seal
from gateway.server.carrier import CarriedCall
from gateway.snapshot.documents import credential_purpose
from gateway.tests.http_plane import caller_of, eventually, route, running, upstream_that

LIMITS = [{"metric": "requests", "amount": 10**6, "per": 1}, {"metric": "bytes_in", "amount": 10**9, "per": 1},
          {"metric": "bytes_out", "amount": 10**9, "per": 1}]  # fmt: skip
METHODS = ["GET"] * 4 + ["POST", "PUT", "PATCH", "DELETE", "HEAD", "PROPFIND"]
TARGETS = [
    "/r/a", "/r/a?x=1", "/r/a?", "/r/%61%2Fb;c=d", "/r/x%zz", "/r//b", "/r/../b", "/r/a?ticket=no", "/limited/a",
    "/named/a/b", "/nowhere", "/r/\u00e9", "/keeps/a", "/changed/a", "/changed/b", "/read/a", "/read/b",
    "/owned/a", "/owned/a/b",
]  # fmt: skip
LINES = [
    "accept: */*", "Accept: text/html", "ACCEPT:x", "user-agent:   spaced", "user-agent: trailing ", "x-empty:",
    "x-own: 1", "x-own: 2", "X_Under: a", "x-consumer-name: forged", "x-apimgmt-a: b", "x-forwarded-for: 9.9.9.9",
    "x-forwarded-proto: https", "forwarded: for=1.1.1.1", "x-real-ip: 1.1.1.1", "connection: keep-alive",
    "Connection: Keep-Alive", "connection: close", "connection: x-own", "keep-alive: 5", "proxy-connection: a",
    "te: trailers", "upgrade: h2c", "expect: 100-continue", "cookie: a=b; sessionid=c", "cookie: csrftoken=x",
    "origin: http://gateway.test", "origin: https://else.test", "host: second.test", "authorization: Basic eDp5",
    "traceparent: 00-11111111111111111111111111111111-2222222222222222-01", "traceparent: bad", "tracestate: a=b",
    "via: 1.1 other", "mcp-method: tools/call", "content-type: application/json", "content-length: 0",
    "idempotency-key: one", "x-http-method-override: PUT", "trailer: x", "proxy: a", "x-latin: \u00e9",
    "if-none-match: \"a\"", "range: bytes=0-1", "sec-fetch-dest: document", "accept-encoding: gzip", "x-key: a:b",
]  # fmt: skip
RESPONSE_LINES = [
    "content-type: text/plain", "Content-Type: text/event-stream", "cache-control: max-age=3", "vary: a", "server: x",
    "date: Thu, 01 Jan 1970 00:00:00 GMT", "connection: keep-alive", "connection: close", "connection: x-a", "x-a: b",
    "set-cookie: a=b; Domain=127.0.0.1", "set-cookie: c=d; Path=/a", "set-cookie: sessionid=x", "location: /b",
    "Location: http://127.0.0.1/c?x=//", "refresh: 0; url=/d", "x-dropped: 1", "link: </a>", "keep-alive: 5",
    "ratelimit: own", "via: 1.1 far", "x-under_score: a", "etag:  \"a\"", "x-empty:", "strict-transport-security: a",
    "access-control-allow-origin: *", "trailer: x", "service-worker-allowed: /", "content-encoding: gzip",
]  # fmt: skip
STATUSES = ["200 OK"] * 6 + [
    "201 Created",
    "204 No Content",
    "304 Not Modified",
    "404 Nope",
    "418 ",
    "429 Slow",
    "503 Down",
]
WARM = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SET = [{"type": "set-headers", "options": {"headers": {"x-set": "1"}}}]
CHANGES = [
    {"type": "set-headers", "options": {"headers": {"x-set": "1", "x-own": "ours", "origin": "https://set.test"}}},
    {"type": "remove-headers", "options": {"headers": ["accept", "x-key", "cookie"]}},
    {"type": "set-headers", "options": {"headers": {"x-a": "c", "vary": "b"}, "on": "response"}},
    {"type": "remove-headers", "options": {"headers": ["x-dropped", "set-cookie", "ratelimit"], "on": "response"}},
    {"type": "request-size-limit", "options": {"max_bytes": 100}},
]
CORS = [
    {"type": "cors", "options": {"allowed_origins": ["https://else.test"], "allow_credentials": True}},
    {"type": "ip-restriction", "options": {"allow": ["127.0.0.0/8", "9.0.0.0/8"]}},
]
SEALED = seal(b"secret", credential_purpose("owned"), json.dumps({"header": "x-own", "value": "of the route"}).encode())
CHANGING = re.compile(rb"date: [^\r]*|t=\d+|r=\d+|00-(?!1{32})[0-9a-f]{32}-[0-9a-f]{16}-01")


@pytest.fixture(autouse=True)
def driver():
    """Begin as the product does."""


class Generated:
    """Answers every request as the test has said, and keeps what it was asked, in bytes."""

    def __init__(self):
        self.response = b""

    async def answer(self, requested, reader, writer):
        writer.write(self.response)


def response_of(chance, method):
    body = b"x" * chance.choice([0, 2, 2, 2, 700])
    lines = chance.sample(RESPONSE_LINES, chance.choice([0, 0, 1, 1, 2, 4]))
    if chance.random() < 0.7:
        lines.insert(chance.randint(0, len(lines)), f"Content-Length: {len(body)}")
        framed = body
    else:
        lines.insert(chance.randint(0, len(lines)), "transfer-encoding: " + chance.choice(["chunked", "Chunked"]))
        framed = chunked(chance, body)
    status = chance.choice(STATUSES)
    is_bodiless = method == "HEAD" or status[:3] in ("204", "304")
    if is_bodiless and chance.random() < 0.7:
        lines = [line for line in lines if not line.lower().startswith(("content-length", "transfer-encoding"))]
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")
    return head if is_bodiless else head + framed


def chunked(chance, body):
    extension, trailer = (
        chance.choice([b"", b"", b"", b"", b";a=b"]),
        chance.choice([b"", b"", b"", b"", b"x-t: 1\r\n"]),
    )
    half = len(body) // 2
    parts = chance.choice([[body], [body[:half], body[half:]]])
    framed = [b"%X%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
    return b"".join((*framed, b"0\r\n", trailer, b"\r\n"))


def request_of(chance, key):
    method = chance.choice(METHODS)
    lines = [chance.choice(LINES) for _ in range(chance.choice([0, 0, 1, 1, 2, 4]))]
    lines.insert(chance.randint(0, len(lines)), "host: gateway.test")
    if chance.random() < 0.95:
        lines.insert(chance.randint(0, len(lines)), f"X-API-Key: {key}")
    body = b""
    if method in ("POST", "PUT", "PATCH") and chance.random() < 0.8:
        body = b"y" * chance.choice([1, 30, 3000])
        lines.append(f"content-length: {len(body)}")
    target = chance.choice([*TARGETS, *["/r/a"] * 12])
    return method, "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


def tallied(plane):
    """Return what usage counts, but for durations, and count anew."""
    tallies, plane.usage._tallies = plane.usage._tallies, {}
    return {label: tally.counted() for label, tally in tallies.items()}


async def exchanged(plane, behind, generated, request, response, *, is_carrying):
    """Return what a request comes to on a connection that is warm: received, asked upstream, and counted."""
    generated.response = WARM
    async with caller_of(plane) as caller:
        assert (await caller.ask("GET", "/r/warm")).status == 200
        (connection,) = plane.server._site.open
        connection.carrier = connection.carrier if is_carrying else None
        generated.response = response
        behind.requests.clear()
        plane.never_calls.clear()
        plane.usage._tallies = {}
        caller.send(request)
        await eventually(lambda: plane.usage._tallies or plane.never_calls)
        counted = {label: tally.counted() for label, tally in plane.usage._tallies.items()}
        # What it left on the connection is seen by what follows.
        generated.response = WARM
        if not connection.transport.is_closing():
            caller.send(caller.head("GET", "/r/last", "connection: close"))
        received = await caller.reader.read()
    await eventually(lambda: not plane.server._site.open)
    asked = repr([(one.method, one.target, one.headers, one.body) for one in behind.requests]).encode()
    return CHANGING.sub(b"", received), CHANGING.sub(b"", asked), counted


@pytest.mark.parametrize("seed", range(6))
async def test_both_drivers_come_to_the_same(tmp_path, seed, monkeypatch):
    chance, generated, carried, plains = random.Random(seed), Generated(), 0, []
    answered = CarriedCall.answered
    monkeypatch.setattr(
        CarriedCall, "answered", lambda self, data: (plains.append(self._data), answered(self, data))[1]
    )
    async with upstream_that(generated.answer) as behind:
        routes = [
            route("r", "/r/{rest...}", behind.url + "/{rest}"),
            route("named", "/named/{rest...}", behind.url + "/{rest}", methods=["GET"], preserve_host=True),
            route("keeps", "/keeps/{rest...}", behind.url + "/{rest}", upstream_authorization="keep"),
            route("limited", "/limited/{rest...}", behind.url + "/{rest}", policies=SET),
            route("changed", "/changed/{rest...}", behind.url + "/{rest}", policies=CHANGES),
            route("read", "/read/{rest...}", behind.url + "/{rest}", policies=CORS, rewrite_location=seed % 2 == 0),
            route("owned", "/owned/{own}/{rest...}", behind.url + "/{own}/{rest}", sealed_credential=SEALED),
        ]
        trusted = (ip_network("127.0.0.0/8"),) if seed % 2 else ()
        options = {"trusted_proxies": trusted, "legacy_ratelimit_headers": seed % 3 == 0}
        async with running(tmp_path, routes, limits=LIMITS[: 2 + seed % 2], **options) as plane:
            for _ in range(60):
                method, request = request_of(chance, plane.key.text)
                response = response_of(chance, method)
                before = len(plains)
                by_callbacks = await exchanged(plane, behind, generated, request, response, is_carrying=True)
                in_a_task = await exchanged(plane, behind, generated, request, response, is_carrying=False)
                assert by_callbacks == in_a_task, (request, response)
                carried += request in plains[before:]
    assert carried > 10
