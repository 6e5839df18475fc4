"""Requests that two parsers could read differently, and those of no valid host: refused, whatever hides behind them."""

import json

import pytest

from gateway.server.tests.heads import CHUNKED, GET, HOST, POST
from gateway.tests.http_plane import caller_of

MALFORMED = {
    "fragment of a path": f"GET /echo#b HTTP/1.1\r\n{HOST}\r\n",
    "fragment of a query": f"GET /echo?a#b HTTP/1.1\r\n{HOST}\r\n",
    "fragment of a bare query": f"GET /echo?# HTTP/1.1\r\n{HOST}\r\n",
    "fragment of an absolute form": f"GET http://gateway.test/echo#b HTTP/1.1\r\n{HOST}\r\n",
    "fragment in HTTP/1.0": f"GET /echo#b HTTP/1.0\r\n{HOST}\r\n",
    "both lengths": POST + "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": POST + "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "length twice": POST + "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "two lengths in one": POST + "content-length: 3, 3\r\n\r\nabc",
    "signed length": POST + "content-length: +3\r\n\r\nabc",
    "negative length": POST + "content-length: -3\r\n\r\nabc",
    "hexadecimal length": POST + "content-length: 0x3\r\n\r\nabc",
    "length without end": POST + f"content-length: {'9' * 40}\r\n\r\nabc",
    "encoding twice": POST + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding hidden": POST + "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding not last": POST + "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "other encoding first": POST + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding in HTTP/1.0": f"POST /echo HTTP/1.0\r\n{HOST}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": "GET /echo HTTP/1.1\nhost: gateway.test\n\n",
    "bare LF in a header": GET + "x-a: 1\nx-b: 2\r\n\r\n",
    "bare LF at the end": GET + "\n",
    "bare LF after the request line": f"GET /echo HTTP/1.1\n{HOST}\r\n",
    "bare CR": GET + "x-a: 1\rx-b: 2\r\n\r\n",
    "NUL": GET + "x-a: 1\x002\r\n\r\n",
    "space before the colon": GET + "x-a : 1\r\n\r\n",
    "header without a name": GET + ": 1\r\n\r\n",
    "folded header": GET + "x-a: 1\r\n x-b: 2\r\n\r\n",
    "folded encoding": POST + "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "header before all": f"GET /echo HTTP/1.1\r\n {HOST}\r\n",
    "chunk size with a sign": CHUNKED + "-3\r\nabc\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size without end": CHUNKED + "f" * 20 + "\r\nabc\r\n0\r\n\r\n",
    "chunk size with a space": CHUNKED + "3 \r\nabc\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + "3\r\nabcd\r\n0\r\n\r\n",
    "chunk with bare LF": CHUNKED + "3\nabc\n0\n\n",
    "extension with bare LF": CHUNKED + "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "encoding twice in HTTP/1.0": f"POST /echo HTTP/1.0\r\n{HOST}transfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
    "encoding with a vertical tab": POST + "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "encoding with a form feed": POST + "transfer-encoding: chunked\x0c\r\n\r\n0\r\n\r\n",
    "encoding with a parameter": POST + "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "encoding in quotes": POST + 'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "encoding and a comma": POST + "transfer-encoding: chunked,\r\n\r\n0\r\n\r\n",
    "encoding chunked twice in one": POST + "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "encoding identity": POST + "transfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc",
    "encoding empty": POST + "transfer-encoding:\r\ncontent-length: 3\r\n\r\nabc",
    "encoding with a space before the colon": POST + "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "encoding after a tab": POST + "\ttransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding after a bare CR": POST + "x: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "length empty": POST + "content-length:\r\n\r\nabc",
    "length with a space inside": POST + "content-length: 1 0\r\n\r\nabc",
    "length with a decimal point": POST + "content-length: 3.0\r\n\r\nabc",
    "length of other digits": POST + "content-length: \xb3\r\n\r\nabc",
    "length beyond 64 bits": POST + "content-length: 18446744073709551619\r\n\r\nabc",
    "length folded": POST + "content-length:\r\n\t3\r\n\r\nabc",
    "length twice, spelled differently": POST + "Content-Length: 3\r\ncontent-length: 03\r\n\r\nabc",
    "header folded with a tab": GET + "x-a: 1\r\n\tx-b: 2\r\n\r\n",
    "header name with a NUL": GET + "x\x00a: 1\r\n\r\n",
    "header name in other letters": GET + "x\xe9: 1\r\n\r\n",
    "header without a colon": GET + "x-a\r\n\r\n",
    "CR CR LF": GET + "x-a: 1\r\r\n\r\n",
    "chunk with bare CR": CHUNKED + "3\rabc\r0\r\r",
    "chunk size empty": CHUNKED + "\r\nabc\r\n0\r\n\r\n",
    "chunk size with an underscore": CHUNKED + "0_3\r\nabc\r\n0\r\n\r\n",
    "chunk size after a space": CHUNKED + " 3\r\nabc\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKED + "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "chunk ended by bare LF": CHUNKED + "3\r\nabc\n0\r\n\r\n",
    "extension with bare CR": CHUNKED + "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "trailer folded": CHUNKED + "0\r\nx: 1\r\n y\r\n\r\n",
    "trailer with bare LF": CHUNKED + "0\r\nx: 1\ny: 2\r\n\r\n",
    "trailer without a colon": CHUNKED + "0\r\nx\r\n\r\n",
    "space before the method": f" GET /echo HTTP/1.1\r\n{HOST}\r\n",
    "tab in the request line": f"GET\t/echo HTTP/1.1\r\n{HOST}\r\n",
    "space in the target": f"GET /ec ho HTTP/1.1\r\n{HOST}\r\n",
    "other letters in the target": f"GET /\xe9 HTTP/1.1\r\n{HOST}\r\n",
    "no version": f"GET /echo HTTP/\r\n{HOST}\r\n",
    "lower-case version": f"GET /echo http/1.1\r\n{HOST}\r\n",
    "version 1.2": f"GET /echo HTTP/1.2\r\n{HOST}\r\n",
    "no host": "GET /echo HTTP/1.1\r\n\r\n",
    "empty host": "GET /echo HTTP/1.1\r\nhost:\r\nx-a: 1\r\n\r\n",
    "blank host": "GET /echo HTTP/1.1\r\nhost:   \t\r\nx-a: 1\r\n\r\n",
    "empty host in HTTP/1.0": "GET /echo HTTP/1.0\r\nhost:\r\n\r\n",
    "host with user": "GET /echo HTTP/1.1\r\nhost: user@gateway.test\r\n\r\n",
    "host with a path": "GET /echo HTTP/1.1\r\nhost: gateway.test/admin\r\n\r\n",
    "host with a port that is none": "GET /echo HTTP/1.1\r\nhost: gateway.test:80x\r\n\r\n",
    "host with a space": "GET /echo HTTP/1.1\r\nhost: gateway.test evil.test\r\n\r\n",
    "hosts in one": "GET /echo HTTP/1.1\r\nhost: gateway.test, evil.test\r\n\r\n",
    "target with a user": f"GET http://user@gateway.test/echo HTTP/1.1\r\n{HOST}\r\n",
    "target with an empty host": f"GET http:///echo HTTP/1.1\r\n{HOST}\r\n",
    "WebSocket in HTTP/1.0": f"GET /echo HTTP/1.0\r\n{HOST}connection: upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "WebSocket with an invalid host": "GET /echo HTTP/1.1\r\nhost: a@b\r\nconnection: upgrade\r\n"
    "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "two hosts": GET + HOST + "\r\n",
    "HTTP/0.9": "GET /echo\r\n\r\n",
    "HTTP/2": f"GET /echo HTTP/2.0\r\n{HOST}\r\n",
    "HTTP/2 with prior knowledge": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method that is no token": f"G@T /echo HTTP/1.1\r\n{HOST}\r\n",
    "method in brackets": f"(GET) /echo HTTP/1.1\r\n{HOST}\r\n",
    "method of other letters": f"G\xcbT /echo HTTP/1.1\r\n{HOST}\r\n",
    "unknown method in HTTP/2": f"FROBNICATE /echo HTTP/2.0\r\n{HOST}\r\n",
    "unknown method and two lengths": f"FROBNICATE /echo HTTP/1.1\r\n{HOST}"
    "content-length: 3\r\ncontent-length: 4\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_gets_400_and_the_connection_closed(plane, behind, request_):
    async with caller_of(plane) as caller:
        keyed = request_.replace(HOST, f"{HOST}x-api-key: {plane.key.text}\r\n", 1)
        # A second request hides behind the first, as a smuggler would send it.
        caller.send(keyed.encode("latin-1") + caller.head("GET", "/echo?smuggled"))
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (400, "invalid-request")
        assert answer.header("content-type") == "application/problem+json"
        assert answer.header("connection") == "close"
        assert await caller.is_closed()
    assert not any("smuggled" in requested.target for requested in behind.requests)
    assert len(plane.never_calls) + len(plane.outcomes) == 1


async def test_a_request_of_http_1_0_needs_no_host(plane, behind):
    async with caller_of(plane) as caller:
        caller.send(f"GET /echo HTTP/1.0\r\nx-api-key: {plane.key.text}\r\n\r\n".encode())
        assert (await caller.answer()).status == 200
    assert not behind.requests[0].header("x-forwarded-host")
