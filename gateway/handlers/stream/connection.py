"""The connection of ``/v1/stream``: one socket, many channels, both directions.

It uses no framework: :class:`gateway.peer.Socket` is all it needs of a server. WebSocket pings and pongs are the
server's (:mod:`gateway.server.websocket`), as ASGI delivers neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from gateway.call import Call, Reply
from gateway.channels.frames import CLOUDEVENTS, Frame, channel_of, content_of, malformed, read_frame, text_of, type_of
from gateway.channels.outbox import SEND_TIMEOUT_S, Outbox
from gateway.channels.publication import UNREAD, Publication
from gateway.concurrency.ending import Ending
from gateway.concurrency.stopping import stop_tasks
from gateway.credentials.api_keys import from_text, is_resumable
from gateway.handlers.stream.filters import StreamFilters
from gateway.log.cloudevents import structured
from gateway.log.event import rfc3339
from gateway.log.event_log import Stored
from gateway.peer import ClientGone, Socket
from gateway.refusals import SENT_BEFORE_CLOSE, ErrorClass, Reason, Refused
from gateway.side_thread import INLINE_MAX_BYTES
from gateway.wire.content_types import JSON

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

BEARER = "bearer"
IN_FLIGHT_MAX = 128
"""Publishes of one connection that may be stored concurrently; at this number the socket is no longer read."""
REF_MAX_CHARS = 255
_NORMAL_CLOSE = {1000, 1001, 1005}
_SERVER_CLOSED = {1002: Reason.INVALID_REQUEST, 1007: Reason.INVALID_PAYLOAD, 1009: Reason.TOO_LARGE, 3008: Reason.IDLE}


class StreamConnection:
    """One socket on ``/v1/stream``, for a call that was authenticated and limited."""

    __slots__ = (
        "_call", "_ending", "_filters", "_in_flight", "_message_max_bytes", "_outbox", "_plane", "_room",
        "_send", "_socket",
    )  # fmt: skip

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._message_max_bytes = plane.config.stream_message_max_bytes
        self._in_flight = 0
        self._room: asyncio.Future[None] | None = None
        self._ending: Ending[Refused] = Ending()
        self._outbox: Outbox[str] = Outbox(plane.limiter, plane.config, call, ending=self._ending, notice=_error)
        self._send = partial(_send, self._outbox)
        self._filters = StreamFilters(plane, call, self._outbox, self._send)

    async def serve(self, socket: Socket) -> Reply:
        """Accept the socket and serve it until either side closes it."""
        self._socket = socket
        route = self._call.route
        await socket.accept(
            self._choose_subprotocol(socket),
            self._plane.limiter.headers(self._call),
            compress=self._plane.config.stream_compression or (route is not None and route.compression),
        )
        connection = self._plane.connections.open(self._call, self._ending)
        connection.readings = self._filters.readings
        connection.keeps_rights = self._filters.keep_rights
        self._send(
            {
                "type": "welcome",
                "connection": connection.id,
                "limits": self._plane.limiter.left(self._call.caller, self._call),
            }
        )
        reader = asyncio.create_task(self._read(), name="stream reader")
        writer = asyncio.create_task(self._write(), name="stream writer")
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, self._ending.future}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await self._end(reader, writer)
        finally:
            self._filters.stop()
            await stop_tasks(reader, writer)

    def _choose_subprotocol(self, socket: Socket) -> str | None:
        self._filters.is_cloudevents = CLOUDEVENTS in socket.subprotocols
        if self._filters.is_cloudevents:
            return CLOUDEVENTS
        return BEARER if BEARER in socket.subprotocols else None

    # Reading

    async def _read(self) -> None:
        socket, outbox = self._socket, self._outbox
        route = self._call.route
        if route is not None and route.handler.get("channel"):
            await self._handle({"type": "subscribe", "channel": self._call.parameters["address"]})
        while True:
            message = await socket.receive()
            if len(message) > self._message_max_bytes or (
                len(message) * 4 > self._message_max_bytes and _size(message) > self._message_max_bytes
            ):
                raise Refused(Reason.TOO_LARGE, f"A message may have at most {self._message_max_bytes} bytes.")
            if len(message) <= INLINE_MAX_BYTES:
                frame, refused = read_frame(message, self._plane.config)
            else:
                frame, refused = await self._plane.side_threads.run(
                    self._call.caller.consumer, len(message), read_frame, message, self._plane.config
                )
            if refused is not None:
                self._refuse(refused, None)
            else:
                await self._handle(frame)
            if not outbox.has_room():
                await outbox.room()

    async def _handle(self, frame: Frame) -> None:
        is_event = self._filters.is_cloudevents and "specversion" in frame
        member = "id" if is_event else "ref"
        ref = frame.get(member)
        try:
            if ref is not None and not (isinstance(ref, str) and len(ref) <= REF_MAX_CHARS):
                ref = None
                raise malformed(f"`{member}` must be a string of at most {REF_MAX_CHARS} characters.")
            if is_event:
                await self._publish_cloudevent(frame, ref)
                return
            handler = self._HANDLERS.get(type_of(frame))
            if handler is None:
                raise malformed(f"`type` must be one of {', '.join(self._HANDLERS)}.")
            await handler(self, frame, ref)
        except Refused as refused:
            self._refuse(refused, ref)

    def _refuse(self, refused: Refused, ref: str | None) -> None:
        if refused.fatal:
            raise refused
        if self._call.connection is not None:
            self._call.connection.refused(refused)
        self._outbox.put(_error(refused, ref))

    async def _subscribe(self, frame: Frame, ref: str | None) -> None:
        await self._filters.subscribe(frame, ref)

    async def _unsubscribe(self, frame: Frame, ref: str | None) -> None:
        await self._filters.unsubscribe(frame, ref)

    async def _ping(self, frame: Frame, ref: str | None) -> None:
        self._send({"type": "pong"} if ref is None else {"type": "pong", "ref": ref})

    async def _publish(self, frame: Frame, ref: str | None) -> None:
        dedupe = frame.get("dedupe", False)
        if not isinstance(dedupe, bool) or (dedupe and not ref):
            raise malformed("`dedupe` must be true or false, and requires a `ref`.")
        tracestate = text_of(frame, "tracestate")
        address = channel_of(frame)
        found = self._plane.snapshot.channel(address)
        data, content_type = content_of(frame, found[0].content_type if found else JSON)
        await self._admit(
            Publication(
                address=address,
                data=data,
                content_type=content_type,
                idempotency_key=ref if dedupe else None,
                traceparent=text_of(frame, "traceparent"),
                attributes={"tracestate": tracestate} if tracestate else {},
                value=frame.get("data", UNREAD),
            ),
            ref,
        )

    async def _publish_cloudevent(self, frame: Frame, ref: str | None) -> None:
        """Publish an event in structured mode (CloudEvents WebSockets binding 3.1) to the address in ``channel``."""
        content = structured({name: value for name, value in frame.items() if name not in ("channel", "sequence")})
        publication = Publication(
            address=channel_of(frame),
            data=content.data,
            content_type=content.content_type,
            attributes=content.attributes,
        )
        await self._admit(publication, ref)

    async def _admit(self, publication: Publication, ref: str | None) -> None:
        """Admit a publish and answer it once it is stored; up to ``IN_FLIGHT_MAX`` are stored concurrently."""
        if self._call.connection is not None:
            self._call.connection.received(len(publication.data))
        admitted = await self._plane.publisher.admit(self._call, publication)
        self._in_flight += 1
        self._plane.publisher.store_soon(self._call, admitted, partial(self._stored, ref))
        while self._in_flight >= IN_FLIGHT_MAX:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _stored(self, ref: str | None, outcome: Stored | Refused) -> None:
        """Answer a publish, in a callback of the log."""
        self._in_flight -= 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if isinstance(outcome, Refused):
            self._refuse(outcome, ref)
        else:
            frame = {"type": "published", "id": str(outcome.sequence)}
            self._send(frame if ref is None else frame | {"ref": ref})

    async def _auth(self, frame: Frame, ref: str | None) -> None:
        """Replace the credential by another one of the same consumer, whose rights and expiry then apply."""
        token = frame.get("token")
        if not isinstance(token, str) or not token:
            raise malformed("`auth` requires a `token`.")
        if is_resumable(token):
            raise malformed("A resumable ticket opens a stream and renews none.")
        principal = await self._plane.authenticator.authenticate(
            replace(self._call, credential=from_text(token), connection=None)
        )
        if principal.consumer != self._call.caller.consumer:
            raise Refused(Reason.FORBIDDEN, "The credential belongs to another consumer.", cause="auth-other-consumer")
        self._plane.policies.renewed(self._call, principal)
        if self._call.connection is not None:
            self._plane.connections.rebind(self._call.connection, principal)
        if not self._filters.keep_rights():
            raise Refused(Reason.FORBIDDEN, "The credential lacks a right that an open filter requires.", fatal=True)
        answer = {"type": "authenticated", "expires_at": principal.expires_at}
        self._send(answer if ref is None else answer | {"ref": ref})

    _HANDLERS: ClassVar[dict[str, Callable[[StreamConnection, Frame, str | None], Awaitable[None]]]] = {
        "ping": _ping,
        "publish": _publish,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "auth": _auth,
    }

    # Writing

    async def _write(self) -> None:
        outbox, send_all = self._outbox, self._socket.send_all
        while True:
            await outbox.filled()
            texts = await outbox.take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await send_all(texts)
            except TimeoutError:
                raise Refused(Reason.TOO_SLOW) from None

    # Ending

    async def _end(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> Reply:
        refused = self._ending.reason
        if refused is None:
            failure = _failure(reader) or _failure(writer)
            if isinstance(failure, ClientGone):
                return _disconnected(failure)
            if isinstance(failure, Refused):
                refused = failure
            elif failure is not None:
                logger.error("stream connection failed", exc_info=failure)
                refused = Refused(Reason.INTERNAL)
            else:
                return _disconnected(ClientGone())
        await stop_tasks(reader, writer)
        await self._close_socket(refused)
        return Reply(
            status=101,
            refused=refused,
            error_class=refused.row.live.value,
            close_code=refused.row.websocket,
            closed_by="gateway",
        )

    async def _close_socket(self, refused: Refused) -> None:
        try:
            async with asyncio.timeout(self._plane.config.close_timeout_s):
                if refused.reason is Reason.DRAINING:
                    by = datetime.now(UTC) + timedelta(seconds=refused.retry_after_s or 0)
                    await self._socket.send(orjson.dumps({"type": "reconnect", "by": rfc3339(by)}).decode())
                elif refused.reason in SENT_BEFORE_CLOSE:
                    await self._socket.send(_error(refused))
                await self._socket.close(refused.row.websocket, refused.close_reason())
        except (TimeoutError, ClientGone):
            logger.debug("a client disconnected before its close frame was sent")


def _send(outbox: Outbox[str], frame: Frame) -> None:
    outbox.put(orjson.dumps(frame).decode())


def _size(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def _error(refused: Refused, ref: str | None = None) -> str:
    return orjson.dumps(refused.frame(ref)).decode()


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _disconnected(gone: ClientGone) -> Reply:
    """Return the reply of a connection that the client closed, or the server because of a client's fault."""
    if gone.code in _SERVER_CLOSED:
        refused = Refused(_SERVER_CLOSED[gone.code])
        error_class = refused.row.live.value
        return Reply(101, refused=refused, error_class=error_class, close_code=gone.code, closed_by="gateway")
    error_class = "" if gone.code in _NORMAL_CLOSE else ErrorClass.CLIENT_GONE.value
    return Reply(101, error_class=error_class, close_code=gone.code, closed_by="client")
