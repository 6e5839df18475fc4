import socket

import pytest

from gateway.refusals import Refused
from gateway.tests.http_plane import echo, upstream_that
from gateway.tests.identity_provider import config
from gateway.upstream.client import UpstreamClient, format_request
from gateway.upstream.origin import Origin


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://a.example", "POST / HTTP/1.1", "a.example"),
        ("https://a.example:8443/hook?x=1&y=%20", "POST /hook?x=1&y=%20 HTTP/1.1", "a.example:8443"),
        ("https://A.example:443/", "POST / HTTP/1.1", "a.example"),
        ("http://[2606:4700::1]:8080?q", "POST /?q HTTP/1.1", "[2606:4700::1]:8080"),
        ("http://[2606:4700::1]/", "POST / HTTP/1.1", "[2606:4700::1]"),
    ],
)
def test_a_request_names_its_target_and_host(url, line, host):
    head, _, body = format_request("POST", url, {"webhook-id": "1"}, b"{}").decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert (lines[0], lines[1], body) == (line, f"host: {host}", "{}")
    assert "content-length: 2" in lines


async def test_an_engine_of_the_gateway_is_never_connected_to():
    async with upstream_that(echo) as engine:
        client = UpstreamClient(config(own_endpoints=frozenset({("127.0.0.1", engine.port)})))
        try:
            for host in ("127.0.0.1", "localhost", "0x7f.1"):
                with pytest.raises(Refused) as caught:
                    await client.fetch("GET", f"http://{host}:{engine.port}/", {}, max_bytes=10)
                assert caught.value.cause == "upstream-unreachable"
        finally:
            await client.close()
        assert engine.connections == 0


@pytest.fixture
async def client():
    client = UpstreamClient(config())
    yield client
    await client.close()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def used_connection(client, listening):
    """Return a pooled connection that has carried one request, and the upstream's side of it."""
    origin = Origin("127.0.0.1", listening.getsockname()[1], is_tls=False)
    connection = await client.lend(origin)
    accepted, _ = listening.accept()
    connection.begin(b"GET / HTTP/1.1\r\n\r\n", is_head_request=False)
    accepted.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await connection.head()
    assert await connection.read() == b""
    client.take_back(connection)
    return connection, accepted


@pytest.mark.parametrize("what", ["its end", "data"])
async def test_what_must_not_be_repeated_gets_no_connection_that_has_something_to_read(client, listening, what):
    """The upstream's end has arrived, and the event loop has not reported it yet."""
    for may_repeat in (True, False):
        connection, accepted = await used_connection(client, listening)
        accepted.send(b"HTTP/1.1 408 Too late\r\n\r\n") if what == "data" else accepted.close()
        lent = await client.lend(connection.origin, may_repeat=may_repeat)
        assert (lent is connection) == may_repeat
        lent.close()
        client.take_back(lent, keep_alive=False)
        accepted.close()


async def test_what_must_not_be_repeated_shares_connections_that_are_quiet(client, listening):
    connection, accepted = await used_connection(client, listening)
    with accepted:
        lent = await client.lend(connection.origin, may_repeat=False)
        assert lent is connection
        client.take_back(lent)
