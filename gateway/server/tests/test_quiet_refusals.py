"""What strangers send writes no line of the log: they could fill it."""

import logging

import pytest

from gateway.tests.http_plane import NOWHERE, caller_of, eventually, route, running

UPGRADE = "connection: upgrade\r\nupgrade: websocket\r\n"
VERSION = "sec-websocket-version: 13\r\n"
KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HEAD = f"GET /ws HTTP/1.1\r\nhost: gateway.test\r\n{UPGRADE}"
SENT = {
    "no key": HEAD + VERSION + KEY,
    "wrong key": HEAD + VERSION + KEY + "x-api-key: wrong\r\n",
    "wrong ticket": HEAD.replace("/ws", "/ws?ticket=tick_x") + VERSION + KEY,
    "unknown path": HEAD.replace("/ws", "/nowhere") + VERSION + KEY,
    "malformed path": HEAD.replace("/ws", "/a/..;/b") + VERSION + KEY,
    "another origin": HEAD + VERSION + KEY + "origin: http://[\r\ncookie: a=1\r\n",
    "no handshake key": HEAD + VERSION,
    "malformed handshake key": HEAD + VERSION + "sec-websocket-key: x\r\n",
    "two handshake keys": HEAD + VERSION + KEY + KEY,
    "another version": HEAD + KEY + "sec-websocket-version: 8\r\n",
    "no version": HEAD + KEY,
    "malformed subprotocol": HEAD + VERSION + KEY + 'sec-websocket-protocol: "x"\r\n',
    "malformed extension": HEAD + VERSION + KEY + "sec-websocket-extensions: ;;\r\n",
    "other letters": HEAD + VERSION + KEY + "x-a: \xff\r\n",
    "another method": HEAD.replace("GET", "POST") + VERSION + KEY,
    "a body": HEAD + VERSION + KEY + "content-length: 3\r\n\r\nabc",
    "frames at once": HEAD + VERSION + KEY + "\r\n" + "\xff" * 200,
    "an invalid host": HEAD.replace("gateway.test", "a@b") + VERSION + KEY,
    "HTTP/1.0": HEAD.replace("1.1", "1.0") + VERSION + KEY,
    "no upstream": HEAD + VERSION + KEY + "x-api-key: {key}\r\n",
    "garbage": "\xff\x00" * 100,
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 100,
    "half a head": "GET /ws HTTP/1.1\r\nhost",
}


@pytest.fixture
async def plane(tmp_path):
    routes = [route("ws", "/ws", f"ws://127.0.0.1:{NOWHERE}/", protocol="websocket")]
    async with running(tmp_path, routes, head_timeout_s=0.05) as plane:
        yield plane


@pytest.mark.parametrize("leaves", [False, True], ids=["reads the answer", "leaves"])
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_a_refused_handshake_or_garbage_writes_no_line(plane, caplog, sent, leaves):
    caplog.set_level(logging.INFO)
    async with caller_of(plane) as caller:
        sent = sent.replace("{key}", plane.key.text)
        caller.send((sent if "\r\n\r\n" in sent else sent + "\r\n").encode("latin-1"))
        if leaves:
            caller.writer.transport.abort()
        else:
            assert (await caller.answer()).status in range(400, 600)
    await eventually(lambda: not plane.server.server_state.connections and not plane.server.server_state.tasks)
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio"] == []
