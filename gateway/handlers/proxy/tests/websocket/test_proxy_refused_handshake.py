"""What an upstream answers to a handshake is what the caller hears (RFC 6455 4.1, 4.2.2)."""

import asyncio
import base64
import hashlib
import ssl

import pytest
from websockets.exceptions import InvalidStatus

from gateway.handlers.proxy.handshake import REFUSAL_MAX_BYTES
from gateway.handlers.proxy.tests.upstream.support import certificate_of
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, socket_of
from gateway.tests.http_plane import ask, caller_of, eventually, read_head, route, running, say, upstream_that

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BODY = b'{"why": "because"}'
FRAMED = {
    "length": b"content-length: 18\r\n\r\n" + BODY,
    "chunks": b'transfer-encoding: chunked\r\n\r\n9\r\n{"why": "\r\n9\r\nbecause"}\r\n0\r\nx-trailer: 1\r\n\r\n',
    "until-close": b"connection: close\r\n\r\n" + BODY,
}
REFUSALS = {
    401: "WWW-Authenticate: Basic realm=x",
    403: "X-Reason: nobody",
    404: "Cache-Control: no-store",
    302: "Location: https://elsewhere.test/login",
    429: "Retry-After: 7",
    503: "Retry-After: Mon, 30 Nov 2026 23:00:00 GMT",
    426: "Sec-WebSocket-Version: 8",
    200: "X-Not: a socket",
    520: "X-Unassigned: yes",
}


def sockets_of(behind, **more):
    return [route("socket", "/socket", f"ws://127.0.0.1:{behind.port}/", protocol="websocket", **more)]


async def refusal(plane):
    async with caller_of(plane) as caller:
        caller.send(caller.head("GET", "/socket", *HANDSHAKE))
        return await caller.answer()


def all_of(answer, name):
    return [value for key, value in answer.headers if key.lower() == name]


@pytest.mark.parametrize("size", [1 << 16, 11], ids=["one-segment", "segments"])
@pytest.mark.parametrize("framing", FRAMED.values(), ids=FRAMED)
async def test_a_refusal_of_the_upstream_reaches_the_caller(tmp_path, framing, size):
    """With its headers and body, not as 502 (spring-cloud/spring-cloud-gateway#1884, #857, #2436)."""
    replies = iter(REFUSALS.items())

    async def refuse(requested, reader, writer):
        status, header = next(replies)
        data = f"HTTP/1.1 {status} Whatever\r\n{header}\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n".encode() + framing
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        return True

    async with upstream_that(refuse) as behind, running(tmp_path, sockets_of(behind)) as plane:
        for status, header in REFUSALS.items():
            response = await refusal(plane)
            name, _, value = header.partition(": ")
            assert (response.status, response.body) == (status, BODY)
            assert all_of(response, name.lower()) == [value]
            assert all_of(response, "set-cookie") == ["a=1", "b=2"]
            assert all_of(response, "content-length") == ["18"]
            assert not all_of(response, "transfer-encoding") + all_of(response, "x-trailer")
        assert not len(plane.connections)
        assert plane.outcomes.count(("ok", "")) == len(REFUSALS) - 2


@pytest.mark.parametrize("length", [b"content-length: 1000000000\r\n", b""], ids=["length", "until-close"])
async def test_a_refusal_without_end_is_bounded(tmp_path, length):
    async def endless(requested, reader, writer):
        writer.write(b"HTTP/1.1 403 Forbidden\r\nx-reason: long\r\n%b\r\n" % length)
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with upstream_that(endless) as behind, running(tmp_path, sockets_of(behind)) as plane:
        response = await refusal(plane)
        assert (response.status, response.header("x-reason")) == (403, "long")
        assert len(response.body) == REFUSAL_MAX_BYTES
        await eventually(lambda: not behind.open)


async def test_a_refusal_whose_body_stays_out_is_passed_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.handlers.proxy.handshake.REFUSAL_TIMEOUT_S", 0.1)

    async def stall(requested, reader, writer):
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 5\r\n\r\nno")
        await reader.read()
        return True

    async with upstream_that(stall) as behind, running(tmp_path, sockets_of(behind)) as plane:
        response = await refusal(plane)
        assert (response.status, response.header("www-authenticate"), response.body) == (401, "Basic", b"no")
        await eventually(lambda: not behind.open)


@pytest.mark.parametrize("status", [200, 204, 304, 403])
async def test_a_refusal_has_no_headers_that_the_upstream_did_not_send(tmp_path, status):
    """Nor a length where no body follows (RFC 9110 8.6)."""
    refused = f"HTTP/1.1 {status} Whatever\r\netag: x\r\n" + ("content-length: 2\r\n\r\nno" if status < 204 else "\r\n")
    refused = refused.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")

    async def refuse(requested, reader, writer):
        writer.write(refused.encode())
        return True

    async with upstream_that(refuse) as behind, running(tmp_path, sockets_of(behind)) as plane:
        response = await refusal(plane)
        assert (response.status, response.header("etag")) == (status, "x")
        assert not all_of(response, "content-type")
        assert len(all_of(response, "content-length")) == (status not in (204, 304))


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_refusal_has_the_callers_names(tmp_path, scheme):
    """Whoever follows the redirect stays with the gateway, and with its protocol."""

    async def redirect(requested, reader, writer):
        lines = (f"location: {scheme}://127.0.0.1:{behind.port}/inner/login?next=/", "set-cookie: a=1; Path=/inner")
        writer.write("\r\n".join(["HTTP/1.1 302 Found", *lines, "content-length: 0", "", ""]).encode())

    async with upstream_that(redirect) as behind:
        url = f"ws://127.0.0.1:{behind.port}/inner/{{rest}}"
        async with running(tmp_path, [route("socket", "/own/{rest...}", url, protocol="websocket")]) as plane:
            response = await ask(plane, "GET", "/own/x", *HANDSHAKE)
            assert response.header("location") == f"{scheme}://gateway.test/own/login?next=/"
            assert response.header("set-cookie") == "a=1; Path=/own"


async def test_policies_see_the_headers_of_a_refusal(tmp_path):
    policies = [{"type": "remove-headers", "options": {"headers": ["X-Secret"], "on": "response"}, "mode": "enforce"}]
    refused = b"HTTP/1.1 403 Forbidden\r\nx-secret: 1\r\nset-cookie: sessionid=x\r\ncontent-length: 0\r\n\r\n"
    async with (
        upstream_that(say(refused)) as behind,
        running(tmp_path, sockets_of(behind, policies=policies)) as plane,
    ):
        response = await refusal(plane)
        assert not all_of(response, "x-secret") + all_of(response, "set-cookie")


def accepting(*lines, status=b"101 Switching Protocols", before=b"", after=b""):
    """Return an upstream that accepts with these lines; it then echoes one short text message."""

    async def accept(requested, reader, writer):
        (key,) = requested.header("sec-websocket-key")
        digest = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        head = [f"Sec-WebSocket-Accept: {digest}", "Upgrade: WebSocket", *lines]
        writer.write(before + b"HTTP/1.1 " + status + b"\r\n" + "\r\n".join([*head, "", ""]).encode() + after)
        frame = await reader.readexactly(11)
        writer.write(b"\x81\x05" + bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6:])))
        await reader.read()
        return True

    return accept


@pytest.mark.parametrize("is_tls", [False, True])
async def test_the_fields_of_the_101_are_passed(tmp_path, is_tls):
    """spring-cloud/spring-cloud-gateway#2225, http-party/node-http-proxy#624."""
    lines = ("Connection: keep-alive, Upgrade", "Set-Cookie: a=1", "Set-Cookie: b=2", "Set-Cookie: sessionid=x",
             "X-Own: 1", "Date: never", "Sec-WebSocket-Extensions: ")  # fmt: skip
    hints = b"HTTP/1.1 103 Early Hints\r\nx-hint: 1\r\n\r\n"
    accept = accepting(*lines, before=hints, after=b"\x81\x05first")
    text, certificate = certificate_of("127.0.0.1", tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)

    async def connected(reader, writer):
        await accept(await read_head(reader), reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=serving if is_tls else None)
    url = f"{'wss' if is_tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, running(tmp_path, [route("socket", "/socket", url, protocol="websocket")]) as plane:
        plane.upstreams.tls.load_verify_locations(cadata=text)
        async with socket_of(plane) as socket:
            headers = socket.response.headers
            assert (headers.get_all("Set-Cookie"), headers["X-Own"]) == (["a=1", "b=2"], "1")
            assert "x-hint" not in headers
            assert headers.get_all("Upgrade") == ["websocket"]
            assert "sec-websocket-extensions" not in headers
            assert await socket.recv() == "first"
            await socket.send("hello")
            assert await socket.recv() == "hello"


async def test_a_101_may_come_byte_by_byte_and_without_a_phrase(tmp_path):
    async def slowly(requested, reader, writer):
        class Slow:
            def write(self, data):
                self.data = data

        slow = Slow()
        answering = accepting("Connection: upgrade", status=b"101", after=b"\x81\x02hi")
        task = asyncio.ensure_future(answering(requested, reader, slow))
        while not hasattr(slow, "data"):
            await asyncio.sleep(0)
        for byte in slow.data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        task.cancel()
        await reader.read()
        return True

    async with upstream_that(slowly) as behind, running(tmp_path, sockets_of(behind)) as plane, socket_of(plane) as one:
        assert await one.recv() == "hi"


async def test_a_client_of_sockets_reads_the_refusal(tmp_path):
    refused = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno"
    async with upstream_that(say(refused)) as behind, running(tmp_path, sockets_of(behind)) as plane:
        with pytest.raises(InvalidStatus) as info:
            await socket_of(plane)
        response = info.value.response
        assert (response.status_code, response.headers["www-authenticate"], response.body) == (401, "Basic", b"no")
