"""Channels through the server, with real clients."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.frames import Close, Frame, Opcode

from gateway.tests.event_plane import WAIT_S, channel, running
from gateway.tests.servers import served as served_by_us
from gateway.wire.fragments import EMPTY_MAX

CHANNELS = [channel("trades"), channel("market/{symbol}")]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane, served(plane) as plane.port:
        yield plane


@pytest.fixture
async def impatient(nats_server, tmp_path):
    """Return a plane whose server expects a pong at once."""
    settings = {"ping_interval_s": 0.05, "ping_timeout_s": 0.05}
    async with running(nats_server.url, tmp_path, CHANNELS) as plane, served(plane, **settings) as plane.port:
        yield plane


@asynccontextmanager
async def served(plane, **settings):
    async with served_by_us(plane, replace(plane.config, **settings)):
        yield plane.port


def socket_of(plane, key=None, **more):
    headers = {"authorization": f"Bearer {(key or plane.key).text}"}
    return connect(f"ws://127.0.0.1:{plane.port}/v1/stream", additional_headers=headers, open_timeout=WAIT_S, **more)


async def heard(socket, type_):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        if frame["type"] == type_:
            return frame


async def http(plane, method, path, body=b"", **headers):
    """Send one request; give the status, and the streams where the answer does not end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {plane.key.text}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"content-length: {len(body)}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)).decode().lower()
    return int(head.split()[1]), head, reader, writer


async def answered(plane, method, path, body=b"", **headers):
    status, _, reader, writer = await http(plane, method, path, body, connection="close", **headers)
    reply = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    return status, json.loads(reply)


async def test_the_same_event_reaches_every_protocol(plane):
    _, head, stream, writer = await http(plane, "GET", "/v1/events?channel=trades")
    assert "content-type: text/event-stream" in head
    await stream.readuntil(b"retry: 2000")
    async with socket_of(plane) as socket:
        await heard(socket, "welcome")
        await socket.send('{"type":"subscribe","channel":"trades","from":"latest"}')
        await heard(socket, "subscribed")
        status, reply = await answered(plane, "POST", "/v1/channels/trades/events", b'{"price":1}')
        assert status == 201
        event = await heard(socket, "event")
        assert (event["id"], event["data"]) == (reply["id"], {"price": 1})
        assert f"id: {reply['id']}\n".encode() in await asyncio.wait_for(stream.readuntil(b'{"price":1}\n'), WAIT_S)
    _, history = await answered(plane, "GET", "/v1/channels/trades/events?limit=1")
    assert history["results"] == [event]
    writer.close()


async def test_an_address_with_slashes_may_be_written_plain_or_encoded(plane):
    for path in ("market/BTC.USD", "market%2FBTC.USD"):
        assert (await answered(plane, "POST", f"/v1/channels/{path}/events", b"1"))[0] == 201
    status, history = await answered(plane, "GET", "/v1/channels/market%2FBTC.USD/events")
    assert (status, [event["channel"] for event in history["results"]]) == (200, ["market/BTC.USD"] * 2)


async def test_a_browser_offers_its_key_as_a_subprotocol_and_gets_it_not_back(plane):
    url = f"ws://127.0.0.1:{plane.port}/v1/stream"
    async with connect(url, subprotocols=["bearer", plane.key.text]) as socket:
        assert socket.subprotocol == "bearer"
        await heard(socket, "welcome")
    async with connect(url, subprotocols=["cloudevents.json", "bearer", plane.key.text]) as socket:
        assert socket.subprotocol == "cloudevents.json"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer apim_nonsense"}])
async def test_without_a_valid_key_there_is_no_101(plane, headers):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{plane.port}/v1/stream", additional_headers=headers)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["reason"] == "unauthenticated"


async def closed(socket):
    try:
        while True:
            await asyncio.wait_for(socket.recv(), WAIT_S)
    except websockets.ConnectionClosed as gone:
        return gone.rcvd.code, gone.rcvd.reason


async def test_a_message_over_the_limit_is_1009(plane):
    async with socket_of(plane) as socket:
        await socket.send('{"type":"ping","x":"' + "x" * plane.config.stream_message_max_bytes + '"}')
        assert await closed(socket) == (1009, '{"reason":"too-large"}')


async def test_bad_utf8_is_1007_and_no_fault_of_ours(plane, caplog):
    async with socket_of(plane) as socket:
        await heard(socket, "welcome")
        send_frames(socket, Frame(Opcode.TEXT, b"\xff\xfe"))
        assert await closed(socket) == (1007, '{"reason":"invalid-payload"}')
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_malformed_frame_is_1002_with_its_reason(plane):
    async with socket_of(plane) as socket:
        await heard(socket, "welcome")
        socket.transport.write(b"\x83\x80mask")
        assert await closed(socket) == (1002, '{"reason":"invalid-request"}')


def send_frames(socket, *frames):
    for frame in frames:
        socket.protocol.send_frame(frame)
    for data in socket.protocol.data_to_send():
        socket.transport.write(data)


async def test_empty_fragments_without_end_are_1009(plane):
    async with socket_of(plane) as socket:
        await heard(socket, "welcome")
        send_frames(socket, Frame(Opcode.TEXT, b"{", fin=False))
        send_frames(socket, *(Frame(Opcode.CONT, b"", fin=False) for _ in range(EMPTY_MAX + 1)))
        assert await closed(socket) == (1009, '{"reason":"too-large"}')


async def test_a_message_in_as_many_fragments_as_it_has_bytes_is_taken(plane):
    text = json.dumps({"type": "ping", "x": "x" * 15_000, "ref": "7"}).encode()
    async with socket_of(plane) as socket:
        send_frames(socket, Frame(Opcode.TEXT, text[:1], fin=False))
        send_frames(socket, *(Frame(Opcode.CONT, bytes([byte]), fin=False) for byte in text[1:]))
        send_frames(socket, Frame(Opcode.CONT, b"", fin=True))
        assert (await heard(socket, "pong"))["ref"] == "7"


async def test_a_close_between_fragments_is_a_close(plane):
    async with socket_of(plane) as socket:
        await heard(socket, "welcome")
        send_frames(socket, Frame(Opcode.TEXT, b"{", fin=False), Frame(Opcode.CLOSE, Close(1000, "").serialize()))
        assert (await closed(socket))[0] == 1000


async def test_a_frame_that_says_it_is_larger_than_a_message_of_the_stream_is_refused_before_it_comes(
    plane,
):
    most = plane.config.stream_message_max_bytes
    async with served(plane, stream_message_max_bytes=most) as plane.port, socket_of(plane) as socket:
        await heard(socket, "welcome")
        socket.transport.write(b"\x81\xff" + (most + 1).to_bytes(8) + b"mask")
        assert await closed(socket) == (1009, '{"reason":"too-large"}')


async def test_a_peer_that_answers_no_ping_is_idle(impatient):
    async with socket_of(impatient) as socket:
        socket.protocol.recv_frame = lambda frame, answer=socket.protocol.recv_frame: (
            None if frame.opcode is Opcode.PING else answer(frame)
        )
        assert await closed(socket) == (3008, '{"reason":"idle"}')


async def test_a_peer_that_a_limit_delays_is_not_idle(impatient):
    impatient.change_tier([{"metric": "messages_in", "amount": 1, "per": 1, "exceed": "delay"}])
    async with socket_of(impatient) as socket:
        for _ in range(3):
            await socket.send('{"type":"publish","channel":"trades","data":1}')
        for _ in range(3):
            await heard(socket, "published")


async def test_a_ping_flood_is_answered_and_costs_the_others_nothing(plane):
    async with socket_of(plane) as flooding, socket_of(plane) as other:
        for _ in range(20):
            send_frames(flooding, *(Frame(Opcode.PING, b"x" * 100) for _ in range(500)))
        await heard(other, "welcome")
        await other.send('{"type":"ping"}')
        await heard(other, "pong")
        await flooding.send('{"type":"ping"}')
        await heard(flooding, "pong")


async def test_a_revoked_key_closes_with_3000_and_its_reason(plane):
    async with socket_of(plane) as socket, socket_of(plane, plane.other_key) as other:
        await heard(socket, "welcome")
        await heard(other, "welcome")
        plane.change_key(revoked_at=1.0)
        assert await closed(socket) == (3000, '{"reason":"key-revoked"}')
        await other.send('{"type":"ping"}')
        await heard(other, "pong")


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [({"revoked_at": 1.0}, 401, "key-revoked"), ({"scopes": ["subscribe:*"]}, 403, "forbidden")],
)
async def test_what_is_still_on_its_way_when_its_key_loses_the_right_is_not_published(plane, change, status, reason):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(
        f"POST /v1/channels/trades/events HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {plane.key.text}\r\n"
        "content-type: application/json\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n".encode()
    )
    assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    plane.change_key(**change)
    writer.write(b"1")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    assert int(head.split()[1]) == status
    assert json.loads(await asyncio.wait_for(reader.readuntil(b"}"), WAIT_S))["reason"] == reason
    writer.close()


@pytest.mark.parametrize(
    ("address", "change", "status"), [("nowhere", {}, 404), ("trades", {"scopes": ["subscribe:*"]}, 403)]
)
async def test_a_body_that_cannot_be_published_is_not_asked_for(plane, address, change, status):
    plane.change_key(**change)
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(
        f"POST /v1/channels/{address}/events HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {plane.key.text}\r\n"
        "content-type: application/json\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    assert int(head.split()[1]) == status
    writer.close()


async def test_a_client_that_hangs_up_is_noticed_at_once(plane):
    _, _, stream, writer = await http(plane, "GET", "/v1/events?channel=trades")
    await stream.readuntil(b"retry: 2000")
    socket = await socket_of(plane)
    await heard(socket, "welcome")
    assert len(plane.connections) == 2
    writer.transport.abort()
    socket.transport.abort()
    async with asyncio.timeout(WAIT_S):
        while len(plane.connections):
            await asyncio.sleep(0.01)


async def test_a_reader_that_never_reads_is_dropped_and_the_others_hear_everything(plane):
    most = 30
    async with socket_of(plane) as good, socket_of(plane, compression=None) as slow:
        for socket in (slow, good):
            await heard(socket, "welcome")
            await socket.send('{"type":"subscribe","channel":"trades"}')
            await heard(socket, "subscribed")
        slow.transport.pause_reading()
        big = json.dumps("x" * 500_000).encode()
        for _ in range(most):
            assert (await answered(plane, "POST", "/v1/channels/trades/events", big))[0] == 201
            await heard(good, "event")
        async with asyncio.timeout(WAIT_S):
            while len(plane.connections) > 1:
                await asyncio.sleep(0.01)
        slow.transport.abort()
        await good.send('{"type":"ping"}')
        await heard(good, "pong")


async def test_a_refusal_over_http_is_problem_details(plane):
    status, reply = await answered(plane, "POST", "/v1/channels/trades/events", b"{")
    assert (status, reply["reason"], reply["pointer"]) == (422, "invalid-payload", "")
    status, reply = await answered(plane, "GET", "/v1/channels/nowhere/events")
    assert (status, reply["reason"]) == (404, "not-found")
    status, reply = await answered(plane, "GET", "/v1/events")
    assert (status, reply["reason"]) == (400, "invalid-request")
    status, reply = await answered(plane, "GET", "/v1/events?channel=trades", last_event_id="bogus")
    assert (status, reply["reason"]) == (400, "invalid-request")
