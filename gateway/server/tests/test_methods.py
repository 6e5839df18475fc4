"""Methods: any token (RFC 9110 9.1); unknown to a route 405, and 501 where the gateway cannot."""

import json

import pytest

from gateway.tests.http_plane import ask, caller_of, route, running

PARSED = ("PROPFIND", "REPORT", "QUERY", "MKCOL", "M-SEARCH", "PURGE")
UNPARSED = ("FROBNICATE", "VERSION-CONTROL", "BASELINE-CONTROL", "get", "Propfind", "DESCRIBE", "X", "!#$%&'*+-.^_`|~1")


@pytest.fixture
async def plane(tmp_path, behind):
    routes = [
        route("any", "/any", behind.url + "/any", methods=["*"]),
        route("dav", "/dav", behind.url + "/dav", methods=["GET", *PARSED, *UNPARSED]),
        route("all", "/all", behind.url + "/all"),
        route("read", "/read", behind.url + "/read", methods=["GET"]),
    ]
    async with running(tmp_path, routes) as plane:
        yield plane


@pytest.mark.parametrize("method", [*PARSED, *UNPARSED])
async def test_any_token_reaches_the_upstream_where_a_route_takes_it(plane, behind, method):
    """As labstack/armor#40 has it: WebDAV, CalDAV and what has no name yet pass as they are."""
    for path in ("/dav", "/any"):
        answer = await ask(plane, method, path, body=b"<propfind/>")
        assert answer.status == 200
        assert (behind.requests[-1].method, behind.requests[-1].body) == (method, b"<propfind/>")


@pytest.mark.parametrize("method", [*PARSED, *UNPARSED])
async def test_a_method_unknown_to_the_route_is_named_as_such(plane, behind, method):
    async with caller_of(plane) as caller:
        answer = await caller.ask(method, "/read")
        assert (answer.status, json.loads(answer.body)["reason"]) == (405, "method-not-allowed")
        assert answer.header("allow") == "GET, HEAD"
        # The connection goes on: the request was read whole.
        assert (await caller.ask("GET", "/read")).status == 200


async def test_methods_of_one_connection_do_not_mix(plane, behind):
    async with caller_of(plane) as caller:
        for method in ("FROBNICATE", "GET", "frobnicate", "POST", "FROB", "GET"):
            assert (await caller.ask(method, "/any", body=b"abc")).status == 200
    assert [asked.method for asked in behind.requests] == ["FROBNICATE", "GET", "frobnicate", "POST", "FROB", "GET"]


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_what_the_gateway_does_not_implement_is_a_501_where_a_route_takes_every_method(plane, behind, method):
    for path in ("/any", "/all") if method == "TRACE" else ("evil.test:443", "/any", "/read", "/nowhere"):
        answer = await ask(plane, method, path)
        assert (answer.status, json.loads(answer.body)["reason"]) == (501, "method-not-implemented")
    assert not behind.requests


async def test_a_method_that_the_parser_meets_too_late_is_a_501(plane, behind):
    async with caller_of(plane) as caller:
        caller.send(caller.head("GET", "/any") + caller.head("FROBNICATE", "/any"))
        assert (await caller.answer()).status == 200
        assert (await caller.answer()).status == 501
        assert await caller.is_closed()
    assert [asked.method for asked in behind.requests] == ["GET"]


async def test_another_upgrade_keeps_the_method(plane, behind):
    answer = await ask(plane, "FROBNICATE", "/any", "connection: upgrade", "upgrade: h2c")
    assert (answer.status, behind.requests[-1].method) == (200, "FROBNICATE")
