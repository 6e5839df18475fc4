"""``Max-Forwards`` (RFC 9110 7.6.2): who is to answer an ``OPTIONS``, and that a ``TRACE`` reaches no upstream."""

import pytest

from gateway.handlers.proxy.tests.upstream.support import OK, is_problem
from gateway.tests.http_plane import ask, route, running, say, upstream_that


@pytest.fixture
async def behind():
    async with upstream_that(say(OK)) as upstream:
        yield upstream


@pytest.fixture
async def plane(behind, tmp_path):
    routes = [
        route("r", "/r", behind.url, methods=["GET", "OPTIONS", "PROPFIND"]),
        route("any", "/any", behind.url, methods=["*"]),
    ]
    async with running(tmp_path, routes) as plane:
        yield plane


async def test_the_last_recipient_answers_with_what_the_route_takes(plane, behind):
    for value in ("0", "00"):
        answer = await ask(plane, "OPTIONS", "/r", f"max-forwards: {value}")
        assert (answer.status, answer.header("allow"), answer.body) == (200, "GET, HEAD, OPTIONS, PROPFIND", b"")
        assert answer.header("content-length") == "0"
    everything = await ask(plane, "OPTIONS", "/any", "max-forwards: 0")
    assert everything.header("allow") == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert (await ask(plane, "OPTIONS", "/r", "max-forwards: 0", key=None)).status == 401
    assert behind.requests == []


@pytest.mark.parametrize(
    ("value", "passed"), [("1", "0"), ("10", "9"), ("x", "x"), ("-1", "-1"), ("9" * 30, "9" * 30), ("1, 2", "1, 2")]
)
async def test_what_may_pass_on_is_counted_down(plane, behind, value, passed):
    assert (await ask(plane, "OPTIONS", "/r", f"max-forwards: {value}")).status == 200
    assert behind.requests[-1].header("max-forwards") == [passed]


async def test_other_methods_ignore_it(plane, behind):
    for method in ("GET", "PROPFIND"):
        assert (await ask(plane, method, "/r", "max-forwards: 0")).status == 200
        assert behind.requests[-1].header("max-forwards") == ["0"]


async def test_a_trace_reaches_no_upstream(plane, behind):
    for path, status, reason in (("/r", 405, "method-not-allowed"), ("/any", 501, "method-not-implemented")):
        for lines in ((), ("max-forwards: 0",), ("max-forwards: 7", "cookie: a=b")):
            assert is_problem(await ask(plane, "TRACE", path, *lines), status, reason)
    assert behind.requests == []
