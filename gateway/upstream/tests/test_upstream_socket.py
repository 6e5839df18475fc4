"""The upstream's side of a proxied WebSocket, where an upstream over real sockets cannot be timed."""

import asyncio

from gateway.sockets.connection import READ_AHEAD_BYTES
from gateway.upstream.websocket import UpstreamSocket
from gateway.wire.websocket import PING, TEXT, FrameReader, frame


class Transport:
    def __init__(self):
        self.written, self.is_lost = FrameReader(1000, is_masked=True), False

    @property
    def pings(self):
        count = 0
        while (item := self.written.next()) is not None:
            count += item[0] == PING
        return count

    def write(self, data):
        self.written.feed(data)

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def is_closing(self):
        return self.is_lost

    def abort(self):
        self.is_lost = True


async def connected():
    upstream, transport = UpstreamSocket(1000, ping_interval_s=3600), Transport()
    upstream.connection_made(transport)
    return upstream, transport


async def test_an_upstream_that_was_not_read_for_long_is_not_lost_before_its_answer_is_read():
    upstream, transport = await connected()
    upstream.data_received(frame(TEXT, b"x" * 100) * (READ_AHEAD_BYTES // 100))
    upstream._keep_alive()
    upstream._keep_alive()
    while upstream.frames.buffered_bytes:
        await upstream.read()
    reading = asyncio.create_task(upstream.read())
    await asyncio.sleep(0)
    upstream._is_heard = False
    upstream._ping = b""
    upstream._keep_alive()
    assert (transport.pings, transport.is_lost) == (3, False)
    upstream._keep_alive()
    assert transport.is_lost
    reading.cancel()


async def test_an_upstream_that_is_silent_between_two_pings_is_lost():
    upstream, transport = await connected()
    upstream._keep_alive()
    upstream.data_received(frame(TEXT, b"x"))
    await upstream.read()
    upstream._keep_alive()
    assert not transport.is_lost
    upstream._keep_alive()
    assert transport.is_lost
