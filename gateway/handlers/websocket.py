"""Proxies a WebSocket to the service behind its route, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import picows

from gateway.call import Call, ClientGone, Reply
from gateway.connections import Connection
from gateway.handlers.upstream import HOP_BY_HOP, IDENTITY_PREFIXES, OURS, aim
from gateway.refusals import ErrorClass, Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane

WAITING_MAX = 256
"""Messages of the upstream that may wait for the caller; then the upstream is not read."""
PASSED_ON = frozenset({1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
CLIENT_CODES = range(3000, 5000)
SEND_TIMEOUT_S = 10.0


class UpstreamSocket(picows.WSListener):
    """The upstream's side: its messages wait in a bounded queue, its close is kept."""

    def __init__(self, message_max_bytes: int) -> None:
        self._max_bytes = message_max_bytes
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._kind = picows.WSMsgType.TEXT
        self._is_paused = False
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        """What the upstream said, None at its end."""
        self.close_code = 0
        self.close_reason = ""
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: Any) -> None:
        """Keep the line."""
        self._transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Gather the frames of a message (RFC 6455 5.4)."""
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code() or 1005)
            self.close_reason = frame.get_close_message() or ""
            transport.send_close(self.close_code if _may_be_sent(self.close_code) else 1000)
            transport.disconnect()
            return
        if kind not in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            return
        if kind != picows.WSMsgType.CONTINUATION:
            self._kind = kind
        self._parts_bytes += len(frame.get_payload_as_memoryview())
        if self._parts_bytes > self._max_bytes:
            self.close_code, self.close_reason = 1009, "message of the upstream too large"
            transport.send_close(1009)
            transport.disconnect()
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            self._hand_on(b"".join(self._parts) if len(self._parts) > 1 else self._parts[0])

    def on_ws_disconnected(self, transport: Any) -> None:
        """Say that nothing more will come."""
        self.messages.put_nowait(None)
        self.writable.set()

    def pause_writing(self) -> None:
        """The upstream does not read: neither do we, from the caller."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self.writable.set()

    async def send(self, message: str | bytes) -> None:
        """Pass a message on; waits while the upstream does not read."""
        if not self.writable.is_set():
            await self.writable.wait()
        if isinstance(message, str):
            self._transport.send(picows.WSMsgType.TEXT, message.encode())
        else:
            self._transport.send(picows.WSMsgType.BINARY, message)

    def taken(self) -> None:
        """A message was taken out; there may be room to read again."""
        if self._is_paused and self.messages.qsize() < WAITING_MAX // 2:
            self._is_paused = False
            self._transport.underlying_transport.resume_reading()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close the line with a code that may be sent."""
        if self._transport is not None:
            self._transport.send_close(code if _may_be_sent(code) else 1000, reason.encode()[:123] or None)
            self._transport.disconnect()

    def _hand_on(self, payload: bytes) -> None:
        self._parts, self._parts_bytes = [], 0
        self.messages.put_nowait(payload.decode() if self._kind == picows.WSMsgType.TEXT else payload)
        if not self._is_paused and self.messages.qsize() > WAITING_MAX:
            self._is_paused = True
            self._transport.underlying_transport.pause_reading()


async def proxy(plane: Plane, call: Call) -> Reply:
    """Proxy one WebSocket. The upstream is reached before the caller's ``101``: its absence is a plain 502 or 504."""
    upstream, subprotocol = await _connect(plane, call)
    ending: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()

    def close(refused: Refused) -> None:
        if not ending.done():
            ending.set_result(refused)

    try:
        await call.peer.accept(subprotocol)
        connection = plane.connections.open(call, close)
        return await _pump(plane, call, connection, upstream, ending)
    finally:
        upstream.hang_up(1001)


async def _pump(
    plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket, ending: asyncio.Future[Refused]
) -> Reply:
    """Carry messages both ways until one side, or the gateway, ends it."""
    up = asyncio.create_task(_up(plane, call, connection, upstream), name="websocket up")
    down = asyncio.create_task(_down(plane, call, connection, upstream), name="websocket down")
    try:
        ends: set[asyncio.Future[Any]] = {up, down, ending}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            raise ending.result()
        if up.done():
            failure = up.exception()
            if isinstance(failure, ClientGone):
                upstream.hang_up(failure.code, failure.reason)
                is_normal = failure.code in (1000, 1001, 1005)
                error_class = "" if is_normal else ErrorClass.CLIENT_GONE.value
                return Reply(status=101, close_code=failure.code, closed_by="client", error_class=error_class)
            if failure is not None:
                raise failure
        if down.done() and (failure := down.exception()) is not None:
            raise failure
        return await _upstream_left(call, upstream)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _up(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> None:
    receive, send, limiter = call.peer.receive, upstream.send, plane.limiter
    most = plane.config.proxied_message_max_bytes
    while True:
        message = await receive()
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        if size > most:
            raise Refused(Reason.TOO_LARGE, f"A message holds at most {most} bytes.")
        connection.received(size)
        if not limiter.charge_now(call, messages_in=1, bytes_in=size):
            await _charged(connection, limiter.charge(call, messages_in=1, bytes_in=size))
        await send(message)


async def _down(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> None:
    send, messages, limiter = call.peer.send, upstream.messages, plane.limiter
    while (message := await messages.get()) is not None:
        upstream.taken()
        size = len(message)
        if not limiter.charge_now(call, messages_out=1, bytes_out=size):
            await _charged(connection, limiter.charge(call, messages_out=1, bytes_out=size))
        connection.sent(size)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)
        except TimeoutError:
            raise Refused(Reason.TOO_SLOW) from None


async def _charged(connection: Connection, charge: Awaitable[None]) -> None:
    """Charge what could not be charged at once. The socket is the upstream's to speak on, so a refusal closes it."""
    connection.throttled += 1
    await charge


async def _upstream_left(call: Call, upstream: UpstreamSocket) -> Reply:
    """Pass the upstream's own close code and reason through; a line that broke is 1014."""
    code = upstream.close_code
    if not code or code == 1006:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
    await call.peer.close(code if _may_be_sent(code) else 1000, upstream.close_reason)
    return Reply(status=101, close_code=code, closed_by="upstream")


async def _connect(plane: Plane, call: Call) -> tuple[UpstreamSocket, str | None]:
    aimed = aim(call)
    origin = aimed.origin
    scheme = "wss" if origin.is_tls else "ws"
    upstream = UpstreamSocket(plane.config.proxied_message_max_bytes)
    offered = [part.strip() for part in (call.header(b"sec-websocket-protocol") or "").split(",") if part.strip()]
    if "bearer" in offered:
        # The credential that follows it is for us alone.
        at = offered.index("bearer")
        offered = offered[:at] + offered[at + 2 :]
    headers = _headers(call, offered)
    try:
        async with asyncio.timeout(plane.config.upstream_first_byte_timeout_s):
            await picows.ws_connect(
                lambda: upstream,
                f"{scheme}://{origin.host}:{origin.port}{aimed.at(call)}",
                extra_headers=headers,
                websocket_handshake_timeout=plane.config.upstream_first_byte_timeout_s,
                max_frame_size=plane.config.proxied_message_max_bytes,
                max_redirects=0,
            )
    except TimeoutError:
        raise Refused(Reason.UPSTREAM_TIMEOUT) from None
    except (OSError, picows.WSError) as error:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-unreachable") from error
    return upstream, offered[0] if offered else ("bearer" if call.header(b"sec-websocket-protocol") else None)


def _headers(call: Call, offered: list[str]) -> list[tuple[str, str]]:
    who = call.who
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in call.headers
        if name not in HOP_BY_HOP
        and name not in OURS
        and not name.startswith(IDENTITY_PREFIXES)
        and not name.startswith(b"sec-websocket-")
        and b"_" not in name
    ]
    if offered:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    headers += [("X-Consumer-Name", who.consumer), ("X-Consumer-Key", who.key), ("X-Consumer-Tier", who.tier)]
    return [*headers, ("X-Forwarded-For", call.ip)]


def _may_be_sent(code: int) -> bool:
    """RFC 6455 7.4: 1004 to 1006 and 1015 never travel."""
    return code in PASSED_ON or code in CLIENT_CODES
