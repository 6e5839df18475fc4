"""A connection whose upstream answers early and closes: what it sent is read, although a write to it fails."""

import asyncio

import pytest
import uvloop

from gateway.tests.http_plane import WAIT_S
from gateway.upstream.connection import UpstreamBroken, UpstreamConnection
from gateway.upstream.origin import Origin

ANSWER = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3000\r\n\r\n" + bytes(3000)


async def write_without_end(connection):
    while True:
        await connection.write(bytes(100_000))
        await asyncio.sleep(0)


async def answer_of_an_upstream_that_resets(answer):
    """Let the upstream answer and reset the connection, and the gateway notice it by its next write."""
    closed = asyncio.Event()

    async def refuse(reader, writer):
        writer.write(answer)
        await writer.drain()
        writer.transport.close()
        closed.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1) as server:
        port = server.sockets[0].getsockname()[1]
        origin = Origin("127.0.0.1", port, is_tls=False)
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(lambda: UpstreamConnection(origin), "127.0.0.1", port)
        transport.pause_reading()
        connection.begin(b"POST / HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n", is_head_request=False, is_whole=False)
        async with asyncio.timeout(WAIT_S):
            await closed.wait()
            with pytest.raises(UpstreamBroken):
                await write_without_end(connection)
        while not await connection.head():
            connection.interim.clear()
        body = b""
        while part := await connection.read():
            body += part
        return connection.status, len(body), connection.can_be_kept


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_answer_that_came_before_a_write_failed_is_read(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(answer_of_an_upstream_that_resets(ANSWER)) == (413, 3000, False)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Content", ANSWER[:-1], b"SSH-2.0\r\n"])
def test_half_an_answer_is_none(answer):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(UpstreamBroken):
        runner.run(answer_of_an_upstream_that_resets(answer))
