"""Clients that connect with a token, over HTTP and WebSocket."""

import asyncio
import json
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.http_plane import route

CHANNELS = [channel("trades")]
TOKENS_ALONE = {
    **route("tokens", "/tokens", "", protocol="websocket", methods=["GET"]),
    "handler": {"type": "channel", "channel": "trades"},
    "policies": [{"type": "jwt"}],
}


@asynccontextmanager
async def by_socket(plane, text, path="/v1/stream"):
    headers = {"authorization": f"Bearer {text}"}
    url = f"ws://127.0.0.1:{plane.port}{path}"
    async with connect(url, additional_headers=headers, open_timeout=WAIT_S, compression=None) as socket:
        yield socket


async def http(plane, method, path, *lines):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "host: g", "connection: close", *lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])  # chunked or not


async def heard(socket, type_):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        if frame["type"] == type_:
            return frame


async def is_served(socket):
    await socket.send('{"type":"ping"}')
    await heard(socket, "pong")


async def say(socket, **frame):
    await socket.send(json.dumps(frame))


async def closed(socket):
    async with asyncio.timeout(WAIT_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd and (end.rcvd.code, json.loads(end.rcvd.reason)["reason"])


def outcomes(plane):
    return {(label[5], label[6]) for label in plane.usage._tallies}
