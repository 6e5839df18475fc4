"""The names of the gateway and of the upstream, on both ways through a route."""

from ipaddress import ip_network

import pytest

from gateway.handlers.proxy.tests.websocket.support import echo_messages, socket_of, sockets_that
from gateway.tests.http_plane import ask, caller_of, route, running, upstream_that

TRUSTED = (ip_network("127.0.0.0/8"),)


async def redirect(requested, reader, writer):
    """Redirect as Starlette does by default: to the URL with a slash, made from the ``Host``."""
    host = requested.header("host")[0]
    writer.write(
        f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{host}{requested.target}/\r\ncontent-location: /x\r\n"
        f"set-cookie: a=1; Domain=127.0.0.1; Path=/\r\ncontent-length: 0\r\n\r\n".encode()
    )


@pytest.fixture
async def behind():
    async with upstream_that(redirect) as upstream:
        yield upstream


def routes(url):
    return [
        route("app", "/app/{rest...}", f"{url}/{{rest}}"),
        route("same", "/same/{rest...}", f"{url}/same/{{rest}}"),
        route("kept", "/kept/{rest...}", f"{url}/{{rest}}", preserve_host=True),
        route("left", "/left/{rest...}", f"{url}/{{rest}}", rewrite_location=False),
        route("of", "/t/{tenant}/{rest...}", f"{url}/{{rest}}"),
    ]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/app/items", "http://gateway.test/app/items/"),
        ("/same/items", "http://gateway.test/same/items/"),
        ("/kept/items", "http://gateway.test/kept/items/"),
        ("/t/acme/items", "http://gateway.test/t/acme/items/"),
    ],
)
@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_redirect_to_the_upstream_stays_at_the_gateway(tmp_path, behind, path, location, is_direct):
    """Kludex/uvicorn#965"""
    async with running(tmp_path, routes(behind.url), is_direct=is_direct) as plane:
        answer = await ask(plane, "GET", path)
    prefix = path.removesuffix("/items") if path != "/same/items" else ""
    assert answer.header("location") == location
    assert answer.header("content-location") == f"{prefix}/x"
    assert answer.header("set-cookie") == f"a=1; Path={prefix or '/'}"


async def test_a_route_may_leave_the_upstreams_names(tmp_path, behind):
    async with running(tmp_path, routes(behind.url)) as plane:
        answer = await ask(plane, "GET", "/left/items")
    assert answer.header("location") == f"{behind.url}/items/"
    assert answer.header("set-cookie") == "a=1; Domain=127.0.0.1; Path=/"


async def test_a_caller_without_a_host_gets_a_path(tmp_path, behind):
    async with running(tmp_path, routes(behind.url)) as plane, caller_of(plane) as caller:
        caller.send(f"GET /app/items HTTP/1.0\r\nx-api-key: {plane.key.text}\r\n\r\n".encode())
        assert (await caller.answer()).header("location") == "/app/items/"


async def test_the_upstream_gets_its_own_host_or_the_callers(tmp_path, behind):
    async with running(tmp_path, routes(behind.url)) as plane:
        for path in ("/app/x", "/kept/x"):
            await ask(plane, "GET", path)
    own, kept = behind.requests
    assert (own.header("host"), kept.header("host")) == ([f"127.0.0.1:{behind.port}"], ["gateway.test"])
    assert own.header("x-forwarded-prefix") == ["/app"]
    assert own.header("forwarded") == ["for=127.0.0.1;host=gateway.test;proto=http"]


REPORTED = (
    "x-forwarded-for: 2001:db8::7", "x-forwarded-proto: https", "x-forwarded-host: api.example",
    "x-forwarded-port: 8443", "x-forwarded-prefix: /outer/",
)  # fmt: skip


async def test_what_a_trusted_proxy_reports_is_passed_on_and_is_the_callers_name(tmp_path, behind):
    async with running(tmp_path, routes(behind.url), trusted_proxies=TRUSTED) as plane:
        answer = await ask(plane, "GET", "/app/items", *REPORTED)
    (request,) = behind.requests
    assert {name: value for name, value in request.headers if name.startswith("x-forwarded-")} == {
        "x-forwarded-for": "2001:db8::7",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "api.example:8443",
        "x-forwarded-port": "8443",
        "x-forwarded-prefix": "/outer/app",
    }
    assert request.header("forwarded") == ['for="[2001:db8::7]";host="api.example:8443";proto=https']
    assert answer.header("location") == "https://api.example:8443/outer/app/items/"


async def test_what_a_stranger_reports_is_dropped(tmp_path, behind):
    async with running(tmp_path, routes(behind.url)) as plane:
        answer = await ask(plane, "GET", "/app/items", *REPORTED)
    (request,) = behind.requests
    assert request.header("forwarded") == ["for=127.0.0.1;host=gateway.test;proto=http"]
    assert request.header("x-forwarded-prefix") == ["/app"]
    assert answer.header("location") == "http://gateway.test/app/items/"


@pytest.mark.parametrize(
    "line", ["x-forwarded-host: a/b", "x-forwarded-port: 0", "x-forwarded-port: x", "x-forwarded-prefix: //evil.test"]
)
async def test_a_malformed_report_is_ignored(tmp_path, behind, line):
    async with running(tmp_path, routes(behind.url), trusted_proxies=TRUSTED) as plane:
        answer = await ask(plane, "GET", "/app/items", line)
    assert answer.header("location") == "http://gateway.test/app/items/"


@pytest.mark.parametrize(
    ("path", "origin", "expected"),
    [
        ("/app/x", "http://gateway.test", "http://127.0.0.1:{port}"),
        ("/kept/x", "http://gateway.test", "http://gateway.test"),
        ("/app/x", "http://evil.test", "http://evil.test"),
        ("/app/x", "null", "null"),
    ],
)
async def test_a_request_of_one_origin_is_so_for_the_upstream_and_no_other(tmp_path, behind, path, origin, expected):
    """jupyter/notebook#1311: the upstream compares ``Origin`` with ``Host``."""
    async with running(tmp_path, routes(behind.url)) as plane:
        await ask(plane, "GET", path, f"origin: {origin}")
    assert behind.requests[0].header("origin") == [expected.format(port=behind.port)]


@pytest.mark.parametrize("keeps_host", [False, True])
async def test_a_default_check_of_the_origin_lets_a_websocket_pass(tmp_path, keeps_host):
    """jupyter/notebook#1311, jupyterhub/jupyter-server-proxy#248"""
    async with sockets_that(echo_messages) as behind:
        url = f"ws://127.0.0.1:{behind.port}/{{rest}}"
        kept = route("app", "/app/{rest...}", url, protocol="websocket", preserve_host=keeps_host)
        async with running(tmp_path, [kept]) as plane:
            own = f"127.0.0.1:{plane.port}"
            for origin in (f"http://{own}", "http://evil.test"):
                async with socket_of(plane, "/app/x", origin=origin) as socket:
                    await socket.send("x")
                    assert await socket.recv() == "x"
        same, foreign = (request.headers for request in behind.requests)
        assert same["origin"] == f"http://{same['host']}"
        assert foreign["origin"] != f"http://{foreign['host']}"
        assert (same["host"] == own) is keeps_host
        assert (same["x-forwarded-prefix"], same["x-forwarded-port"]) == ("/app", str(plane.port))


@pytest.mark.parametrize(
    ("path", "destination", "expected"),
    [
        ("/app/a", "http://gateway.test/app/b%20c", "http://127.0.0.1:{port}/b%20c"),
        ("/app/a", "/app/b", "http://127.0.0.1:{port}/b"),
        ("/same/a", "http://gateway.test/same/b", "http://127.0.0.1:{port}/same/b"),
        ("/kept/a", "http://gateway.test/kept/b", "http://gateway.test/b"),
        ("/app/a", "http://other.test/b", "http://other.test/b"),
    ],
)
async def test_a_destination_is_translated_to_the_upstreams_names(tmp_path, behind, path, destination, expected):
    with_move = [one | {"methods": ["MOVE"]} for one in routes(behind.url)]
    async with running(tmp_path, with_move) as plane:
        await ask(plane, "MOVE", path, f"destination: {destination}")
    assert behind.requests[0].header("destination") == [expected.format(port=behind.port)]


@pytest.mark.parametrize(
    "destination",
    ["http://gateway.test/other/b", "http://127.0.0.1:{port}/b", "/same/../b", "/same/%2e%2e/b", "/sameb/x", "b", ""],
)
async def test_a_destination_outside_of_the_route_is_refused(tmp_path, behind, destination):
    with_move = [one | {"methods": ["MOVE"]} for one in routes(behind.url)]
    async with running(tmp_path, with_move) as plane:
        answer = await ask(plane, "MOVE", "/same/a", f"destination: {destination.format(port=behind.port)}")
    assert answer.status == 400
    assert behind.requests == []


async def test_a_destination_behind_a_trusted_proxy_has_its_prefix(tmp_path, behind):
    with_move = [one | {"methods": ["MOVE"]} for one in routes(behind.url)]
    async with running(tmp_path, with_move, trusted_proxies=TRUSTED) as plane:
        await ask(plane, "MOVE", "/app/a", *REPORTED, "destination: https://api.example:8443/outer/app/b")
        refused = await ask(plane, "MOVE", "/app/a", *REPORTED, "destination: https://api.example:8443/app/b")
    assert behind.requests[0].header("destination") == [f"http://127.0.0.1:{behind.port}/b"]
    assert refused.status == 400
