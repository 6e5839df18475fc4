import pytest

from gateway.refusals import Refused
from gateway.tests.http_plane import echo, upstream_that
from gateway.tests.identity_provider import config
from gateway.upstream.client import UpstreamClient, format_request


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
