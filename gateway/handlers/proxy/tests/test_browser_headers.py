"""What answers order browsers to do: never to render the gateway's own, and to come back over TLS only."""

from dataclasses import replace

import pytest

from gateway.tests.http_plane import ask, echo, route, running, say, upstream_that

HSTS = "max-age=31536000; includeSubDomains; preload"
RESETTING = b"HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=0\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
async def plane(request, tmp_path):
    async with upstream_that(echo) as plain, upstream_that(say(RESETTING)) as resetting:
        routes = [
            route("echo", "/echo", f"{plain.url}/echo", methods=["GET", "OPTIONS"]),
            route("resets", "/resets", f"{resetting.url}/resets"),
        ]
        async with running(tmp_path, routes, is_direct=request.param) as plane:
            yield plane


async def test_the_gateways_own_answers_are_no_pages(plane):
    for path in ("/nowhere", "/v1/me"):
        answer = await ask(plane, "GET", path)
        assert answer.header("content-security-policy") == "default-src 'none'; frame-ancestors 'none'", path
    assert (await ask(plane, "GET", "/echo")).header("content-security-policy") is None


async def test_no_request_is_echoed_by_trace(plane):
    assert (await ask(plane, "TRACE", "/echo", "x-secret: 1")).status == 405


async def test_behind_tls_every_answer_says_so_and_no_upstream_undoes_it(plane):
    assert (await ask(plane, "GET", "/echo")).header("strict-transport-security") is None
    plane.config = replace(plane.config, public_url="https://gateway.test")
    for method, path in (("GET", "/echo"), ("GET", "/nowhere"), ("GET", "/resets"), ("OPTIONS", "/echo")):
        headers = (await ask(plane, method, path)).headers
        assert next(value for name, value in headers if name == "strict-transport-security") == HSTS, path
