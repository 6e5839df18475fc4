"""The upstream's side of a proxied WebSocket, where an upstream over real sockets cannot be timed."""

from types import SimpleNamespace

import picows

from gateway.upstream.websocket import WAITING_MAX, UpstreamSocket


class Transport:
    def __init__(self):
        self.pings, self.is_lost = 0, False
        self.underlying_transport = SimpleNamespace(pause_reading=lambda: None, resume_reading=lambda: None)

    def send_ping(self):
        self.pings += 1

    def disconnect(self, *, graceful):
        self.is_lost = True


def text(payload):
    return SimpleNamespace(
        msg_type=picows.WSMsgType.TEXT, rsv1=0, rsv2=0, rsv3=0, fin=True,
        payload_size=len(payload), get_payload_as_bytes=lambda: payload,
    )  # fmt: skip


async def connected():
    upstream, transport = UpstreamSocket(1000, ping_interval_s=3600), Transport()
    upstream.on_ws_connected(transport)
    return upstream, transport


async def test_an_upstream_that_was_not_read_for_long_is_not_lost_before_its_answer_is_read():
    upstream, transport = await connected()
    for _ in range(WAITING_MAX + 1):
        upstream.on_ws_frame(transport, text(b"x"))
    upstream._ping()
    upstream._ping()
    while not upstream.messages.empty():
        upstream.taken(len(upstream.messages.get_nowait()))
    upstream._ping()
    assert (transport.pings, transport.is_lost) == (3, False)
    upstream._ping()
    assert transport.is_lost


async def test_an_upstream_that_is_silent_between_two_pings_is_lost():
    upstream, transport = await connected()
    upstream._ping()
    upstream.on_ws_frame(transport, text(b"x"))
    upstream._ping()
    assert not transport.is_lost
    upstream._ping()
    assert transport.is_lost
