"""Compressed messages on ``/v1/stream``: live events are compressed once for all, the rest for its own connection."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from gateway.tests.event_plane import WAIT_S, channel, running
from gateway.tests.servers import served
from gateway.wire import websocket

DATA = {"text": "the same again and again, " * 20}


@pytest.fixture
async def plane(nats_server, tmp_path):
    channels = [channel("trades")]
    async with (
        running(nats_server.url, tmp_path, channels, stream_compression=True) as plane,
        served(plane, plane.config),
    ):
        yield plane


def socket_of(plane, **offer):
    return connect(
        f"ws://127.0.0.1:{plane.port}/v1/stream",
        additional_headers={"authorization": f"Bearer {plane.key.text}"},
        extensions=[ClientPerMessageDeflateFactory(**offer)],
        compression=None,
        open_timeout=WAIT_S,
    )


async def heard(socket, type_):
    while (frame := json.loads(await asyncio.wait_for(socket.recv(), WAIT_S)))["type"] != type_:
        pass
    return frame


async def tell(socket, **frame):
    await socket.send(json.dumps(frame))


@pytest.mark.parametrize("window", [None, 9])
async def test_events_live_and_from_the_past_arrive_as_they_were_published(plane, window):
    async with socket_of(plane, server_max_window_bits=window) as socket:
        assert "permessage-deflate" in socket.response.headers["sec-websocket-extensions"]
        await tell(socket, type="subscribe", channel="trades", **{"from": "latest"})
        await heard(socket, "subscribed")
        await tell(socket, type="publish", channel="trades", data=DATA)
        assert (await heard(socket, "event"))["data"] == DATA
        await tell(socket, type="subscribe", channel="trades", **{"from": "earliest"})
        assert (await heard(socket, "event"))["data"] == DATA


async def test_a_live_event_is_compressed_once_for_all_who_read_it(plane, monkeypatch):
    made = []
    compress = websocket.compressed
    monkeypatch.setattr(websocket, "compressed", lambda *given: made.append(given) or compress(*given))
    async with socket_of(plane) as one, socket_of(plane) as other, socket_of(plane) as publisher:
        for socket in (one, other):
            await tell(socket, type="subscribe", channel="trades", **{"from": "latest"})
            await heard(socket, "subscribed")
        made.clear()
        await tell(publisher, type="publish", channel="trades", data=DATA)
        for socket in (one, other):
            assert (await heard(socket, "event"))["data"] == DATA
        assert len([payload for payload, *_ in made if b'"type":"event"' in payload]) == 1


async def test_events_are_counted_by_the_bytes_of_their_data(plane):
    async with socket_of(plane) as socket:
        await tell(socket, type="subscribe", channel="trades", **{"from": "latest"})
        await heard(socket, "subscribed")
        await tell(socket, type="publish", channel="trades", data=DATA)
        await heard(socket, "event")
        (connection,) = plane.connections
        assert connection.bytes_in == connection.bytes_out == len(json.dumps(DATA, separators=(",", ":")))
