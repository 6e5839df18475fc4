"""Proxies a WebSocket to the service behind its route, message by message."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
import picows

from gateway.call import Call, ClientGone, Reply
from gateway.connections import Connection
from gateway.handlers.answer import HELD_BACK_S
from gateway.handlers.upstream import IDENTITY_PREFIXES, NOT_PASSED_ON, aim, cookies_of, named_in_connection
from gateway.refusals import SAID_BEFORE_CLOSE, ErrorClass, Reason, Refused, cut

if TYPE_CHECKING:
    from gateway.plane import Plane

WAITING_MAX = 256
WAITING_MAX_BYTES = 1024 * 1024
"""Messages of the upstream that may wait for the caller; then the upstream is not read."""
PASSED_ON = frozenset({1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
CLIENT_CODES = range(3000, 5000)
SEND_TIMEOUT_S = 10.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0
FRAGMENTS_MAX = 10_000
OF_MESSAGES = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)
OF_THE_GATEWAY = (*IDENTITY_PREFIXES, b"sec-websocket-")


class UpstreamSocket(picows.WSListener):
    """The upstream's side: its messages wait in a bounded queue, its close is kept, its silence is its end."""

    def __init__(self, message_max_bytes: int, ping_interval_s: float) -> None:
        self._max_bytes = message_max_bytes
        self._ping_interval_s = ping_interval_s
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._kind = picows.WSMsgType.TEXT
        self._is_paused = False
        self._waiting_bytes = 0
        self._is_heard = False
        self._is_asked = False
        self._pinging: asyncio.TimerHandle | None = None
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        """What the upstream said, None at its end."""
        self.close_code = 0
        self.close_reason = ""
        self.writable = asyncio.Event()
        self.writable.set()
        self.deadline: float | None = None
        """Until when the caller may take to read what it is being sent."""
        self.on_expiry: Callable[[], None] = _nothing

    def on_ws_connected(self, transport: Any) -> None:
        """Keep the line."""
        self._transport = transport
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)

    @property
    def has_connected(self) -> bool:
        """The upstream has answered ``101``."""
        return self._transport is not None

    @property
    def subprotocol(self) -> str | None:
        """What the upstream has chosen of what was offered."""
        chosen: str | None = self._transport.response.headers.get("Sec-WebSocket-Protocol")
        return chosen

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Gather the frames of a message (RFC 6455 5.4)."""
        self._is_heard = True
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            self._closed(int(frame.get_close_code() or 1005), frame.get_close_reason() or "")
            return
        if kind not in OF_MESSAGES:
            return
        if kind != picows.WSMsgType.CONTINUATION:
            self._kind = kind
        elif len(self._parts) >= FRAGMENTS_MAX:
            self._closed(1009, "too many fragments of one message")
            return
        self._parts_bytes += frame.payload_size
        if self._parts_bytes > self._max_bytes:
            self._closed(1009, "message of the upstream too large")
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            self._hand_on(b"".join(self._parts) if len(self._parts) > 1 else self._parts[0])

    def on_ws_disconnected(self, transport: Any) -> None:
        """Say that nothing more will come."""
        if self._pinging is not None:
            self._pinging.cancel()
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

    def taken(self, bytes_: int) -> None:
        """A message of so many bytes was taken out; there may be room to read again."""
        self._waiting_bytes -= bytes_
        if (
            self._is_paused
            and self.messages.qsize() < WAITING_MAX // 2
            and self._waiting_bytes < WAITING_MAX_BYTES // 2
        ):
            self._is_paused = False
            self._transport.underlying_transport.resume_reading()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close the line with a code that may be sent."""
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send_close(code if _may_be_sent(code) else 1000, cut(reason).encode() or None)
        self._transport.disconnect(graceful=self.writable.is_set())

    def expire(self) -> None:
        """The caller takes too long to read a message."""
        self.deadline = None
        self.on_expiry()

    def _closed(self, code: int, reason: str) -> None:
        self.close_code, self.close_reason = code, reason
        self.hang_up(code)

    def _hand_on(self, payload: bytes) -> None:
        self._parts, self._parts_bytes = [], 0
        try:
            self.messages.put_nowait(payload.decode() if self._kind == picows.WSMsgType.TEXT else payload)
        except UnicodeDecodeError:
            self._closed(1007, "text of the upstream is not UTF-8")
            return
        self._waiting_bytes += len(payload)
        if not self._is_paused and (self.messages.qsize() > WAITING_MAX or self._waiting_bytes > WAITING_MAX_BYTES):
            self._is_paused = True
            self._transport.underlying_transport.pause_reading()

    def _ping(self) -> None:
        """Ask for a sign of life; an upstream that has not given one since the last time is lost."""
        if self._is_asked and not self._is_heard and not self._is_paused:
            self._transport.disconnect(graceful=False)
            return
        self._is_heard = False
        self._is_asked = True
        self._transport.send_ping()
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)


async def proxy(plane: Plane, call: Call) -> Reply:
    """Proxy one WebSocket. The upstream is reached before the caller's ``101``: its absence is a plain 502 or 504."""
    upstream = await _connect(plane, call)
    ending: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()

    def close(refused: Refused) -> None:
        if not ending.done():
            ending.set_result(refused)

    upstream.on_expiry = lambda: close(Refused(Reason.TOO_SLOW))
    plane.upstreams.time(upstream)
    try:
        await call.peer.accept(_subprotocol(call, upstream), plane.limiter.headers(call))
        connection = plane.connections.open(call, close)
        return await _pump(plane, call, connection, upstream, ending)
    except Refused as refused:
        if refused.reason in SAID_BEFORE_CLOSE and call.connection is not None:
            with contextlib.suppress(ClientGone, Refused):
                await _say(call, refused)
        raise
    finally:
        plane.upstreams.time_no_more(upstream)
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
        if not limiter.charge_now(call, messages_in=1, bytes_in=size) and not await _is_let_in(
            plane, call, connection, size
        ):
            continue
        await send(message)


async def _down(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> None:
    send, messages, limiter = call.peer.send, upstream.messages, plane.limiter
    while (message := await messages.get()) is not None:
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        upstream.taken(size)
        if not limiter.charge_now(call, messages_out=1, bytes_out=size):
            await _let_out(plane, call, connection, size)
        connection.sent(size)
        upstream.deadline = time.monotonic() + SEND_TIMEOUT_S
        await send(message)
        upstream.deadline = None


async def _is_let_in(plane: Plane, call: Call, connection: Connection, size: int) -> bool:
    """Charge a message that could not be charged at once; False: it was refused, and its sender told so.

    Raises Refused where the limit ends the connection. Nothing else is read meanwhile: the caller's window closes.
    """
    began_at = time.monotonic()
    try:
        await plane.limiter.charge(call, messages_in=1, bytes_in=size)
    except Refused as refused:
        if refused.fatal:
            raise
        connection.refused(refused)
        await _say(call, refused)
        return False
    connection.throttled += time.monotonic() - began_at > HELD_BACK_S
    return True


async def _let_out(plane: Plane, call: Call, connection: Connection, size: int) -> None:
    """Hold a message of the upstream back until limits let it out; none is lost, the upstream is not read meanwhile.

    The caller is told once. Raises Refused where the limit ends the connection, and where only a new month would help.
    """
    began_at = time.monotonic()
    is_told = False
    while True:
        try:
            await plane.limiter.charge(call, messages_out=1, bytes_out=size)
            break
        except Refused as refused:
            if refused.fatal or refused.reason is Reason.QUOTA_EXCEEDED:
                raise
            if not is_told:
                is_told = True
                await _say(call, refused)
            await asyncio.sleep(min(refused.retry_after_s or PAUSE_MIN_S, PAUSE_MAX_S))
    connection.throttled += time.monotonic() - began_at > HELD_BACK_S


async def _say(call: Call, refused: Refused) -> None:
    """Tell the caller in band, as ``/v1/stream`` does. Raises Refused ``too-slow``, and ClientGone."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await call.peer.tell(orjson.dumps(refused.frame()).decode())
    except TimeoutError:
        raise Refused(Reason.TOO_SLOW) from None


async def _upstream_left(call: Call, upstream: UpstreamSocket) -> Reply:
    """Pass the upstream's own close code and reason through; a line that broke is 1014."""
    code = upstream.close_code
    if not code or code == 1006:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
    await call.peer.close(code if _may_be_sent(code) else 1000, upstream.close_reason)
    return Reply(status=101, close_code=code, closed_by="upstream")


async def _connect(plane: Plane, call: Call) -> UpstreamSocket:
    """Open the upstream's socket. Raises Refused ``upstream-unavailable`` and ``upstream-timeout``."""
    config, aimed = plane.config, aim(call)
    origin = aimed.origin
    upstream = UpstreamSocket(config.proxied_message_max_bytes, config.ping_interval_s)
    connected = await plane.upstreams.connect_socket(origin)
    try:
        async with asyncio.timeout(config.upstream_connect_timeout_s + config.upstream_first_byte_timeout_s):
            await picows.ws_connect(
                lambda: upstream,
                f"{'wss' if origin.is_tls else 'ws'}://{origin.authority}{aimed.at(call)}",
                socket_factory=lambda _: connected,
                ssl_context=plane.upstreams.tls if origin.is_tls else None,
                extra_headers=_headers(call, aimed.host, config.public_scheme),
                websocket_handshake_timeout=config.upstream_first_byte_timeout_s,
                max_frame_size=config.proxied_message_max_bytes,
                max_redirects=0,
            )
    except TimeoutError:
        raise Refused(Reason.UPSTREAM_TIMEOUT) from None
    except (OSError, picows.WSError) as error:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-unreachable") from error
    if not upstream.has_connected:
        # It hung up instead of an answer.
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
    return upstream


def _offered(call: Call) -> list[str]:
    """Give the subprotocols that the caller offers, without a credential: that is for us alone."""
    offered = [
        part.strip()
        for name, value in call.headers
        if name == b"sec-websocket-protocol"
        for part in value.decode("latin-1").split(",")
        if part.strip()
    ]
    if "bearer" in offered:
        at = offered.index("bearer")
        offered = offered[:at] + offered[at + 2 :]
    return offered


def _subprotocol(call: Call, upstream: UpstreamSocket) -> str | None:
    """Choose what the upstream has chosen; else ``bearer``, where a credential was offered beside it."""
    chosen = upstream.subprotocol
    if chosen is None and call.header(b"sec-websocket-protocol") and not _offered(call):
        return "bearer"
    return chosen if chosen in _offered(call) else None


def _headers(call: Call, host: str, scheme: str) -> list[tuple[str, str]]:
    who = call.who
    named = named_in_connection(call.headers)
    passed = [
        (name, value)
        for name, value in call.headers
        if not (name in NOT_PASSED_ON or name in named or name.startswith(OF_THE_GATEWAY) or b"_" in name)
    ]
    if b"cookie" not in named:
        passed += [(name, cookies_of(value)) for name, value in call.headers if name == b"cookie" and cookies_of(value)]
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in (*passed, *call.added_headers)]
    if offered := _offered(call):
        headers.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    if asked_host := call.header(b"host"):
        headers.append(("X-Forwarded-Host", asked_host))
    return [
        *headers,
        ("Host", host),
        ("X-Consumer-Name", who.consumer),
        ("X-Consumer-Key", who.key),
        ("X-Consumer-Tier", who.tier),
        ("X-Forwarded-For", call.ip),
        ("X-Forwarded-Proto", scheme),
    ]


def _nothing() -> None:
    """Stand where nobody has asked to be told."""


def _may_be_sent(code: int) -> bool:
    """RFC 6455 7.4: 1004 to 1006 and 1015 never travel."""
    return code in PASSED_ON or code in CLIENT_CODES
