"""The connection of ``/v1/stream``: one socket, many channels, both ways.

Channels would make a task of every message; this class is a Channels consumer that drives ``receive`` itself. Ping
and pong are the server's (:mod:`gateway.server_socket`): ASGI gives an application neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from channels.consumer import AsyncConsumer

from gateway import policies
from gateway.authenticate import allowed, authenticate
from gateway.call import Call, ClientGone, Reply, Socket
from gateway.catch_up import Gap
from gateway.cloudevents import structured
from gateway.conflation import Conflation, interval_of
from gateway.credentials import from_text
from gateway.ending import ended
from gateway.event import Event, rfc3339
from gateway.hub import Listening
from gateway.outbox import SEND_TIMEOUT_S, Outbox
from gateway.publish import Admitted, Publication, admit, is_routed_to, store
from gateway.reading import Selection, gap_members, position_of, resolve, select
from gateway.refusals import SAID_BEFORE_CLOSE, ErrorClass, Reason, Refused
from gateway.rights import conflated_s
from gateway.subscriber_lag import Reading, told
from gateway.validation import dump, parse

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

CLOUDEVENTS = "cloudevents.json"
BEARER = "bearer"
SUBSCRIPTIONS_MAX = 200
IN_FLIGHT_MAX = 128
"""Publishes of one connection on their way to the log; past it the socket is not read."""
REF_MAX_CHARS = 255
_NORMAL_CLOSE = {1000, 1001, 1005}
_SERVER_CLOSED = {1002: Reason.INVALID_REQUEST, 1007: Reason.INVALID_PAYLOAD, 1009: Reason.TOO_LARGE, 3008: Reason.IDLE}

Frame = Mapping[str, Any]


class Subscription:
    """What one ``subscribe`` frame asked for, while it lasts."""

    __slots__ = ("asked_s", "conflation", "listening", "principal", "reading", "selection")

    def __init__(self, selection: Selection, principal: object, asked_s: float) -> None:
        self.selection = selection
        self.asked_s = asked_s
        """The interval of conflation that was asked for; the rights of the caller may give it less."""
        self.principal = principal
        self.conflation: Conflation | None = None
        self.listening: Listening | None = None
        self.reading = Reading(selection.address)

    def stop(self) -> None:
        """Deliver nothing more."""
        if self.listening is not None:
            self.listening.stop()
        if self.conflation is not None:
            self.conflation.stop()


class StreamConnection(AsyncConsumer):  # type: ignore[misc]
    """One socket on ``/v1/stream``, for a call that was authenticated and limited."""

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._message_max_bytes = plane.config.stream_message_max_bytes
        self._subscriptions: dict[str, Subscription] = {}
        self._is_cloudevents = False
        self._in_flight: set[asyncio.Task[None]] = set()
        self._landed: asyncio.Future[None] | None = None
        self._outbox: Outbox[str] = Outbox(plane, call, overflowed=self.close, say=_error)
        self._handlers: dict[str, Callable[[Frame, str | None], Awaitable[None]]] = {
            "ping": self._ping,
            "publish": self._publish,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "auth": self._auth,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as an ASGI application, as ``StreamConnection.as_asgi(plane=…, call=…)`` makes one."""
        from gateway.protocols.socket import AsgiSocket

        self.scope = scope
        self.base_send = send
        await self.serve(AsgiSocket(scope, receive, send))

    async def serve(self, socket: Socket) -> Reply:
        """Accept the socket and serve it until either side ends it."""
        self._socket = socket
        self._ending: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()
        await socket.accept(self._choose_subprotocol(), self._plane.limiter.headers(self._call))
        connection = self._plane.connections.open(self._call, self.close)
        connection.readings = self._readings
        connection.keeps_rights = self._keeps_rights
        self._say(
            {
                "type": "welcome",
                "connection": connection.id,
                "limits": self._plane.limiter.left(self._call.who, self._call),
            }
        )
        reader = asyncio.create_task(self._read(), name="stream reader")
        writer = asyncio.create_task(self._write(), name="stream writer")
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, self._ending}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await self._end(reader, writer)
        finally:
            for subscription in self._subscriptions.values():
                subscription.stop()
            await ended(reader, writer)

    def close(self, refused: Refused) -> None:
        """End the connection for this reason; returns at once."""
        if not self._ending.done():
            self._ending.set_result(refused)

    def _choose_subprotocol(self) -> str | None:
        headers = [value for name, value in self._call.headers if name == b"sec-websocket-protocol"]
        offered = [part.strip() for part in b",".join(headers).decode("latin-1").split(",")]
        self._is_cloudevents = CLOUDEVENTS in offered
        return CLOUDEVENTS if self._is_cloudevents else BEARER if BEARER in offered else None

    # Reading

    async def _read(self) -> None:
        socket, outbox = self._socket, self._outbox
        route = self._call.route
        if route is not None and route.handler.get("channel"):
            await self._handle({"type": "subscribe", "channel": self._call.parameters["address"]})
        while True:
            message = await socket.receive()
            if len(message) > self._message_max_bytes or (
                len(message) * 4 > self._message_max_bytes and _bytes_of(message) > self._message_max_bytes
            ):
                raise Refused(Reason.TOO_LARGE, f"A message holds at most {self._message_max_bytes} bytes.")
            frame, refused = _read_frame(message, self._plane.config)
            if refused is not None:
                self._refuse(refused, None)
            else:
                await self._handle(frame)
            if not outbox.has_room():
                await outbox.room()

    async def _handle(self, frame: Frame) -> None:
        is_event = self._is_cloudevents and "specversion" in frame
        member = "id" if is_event else "ref"
        ref = frame.get(member)
        try:
            if ref is not None and not (isinstance(ref, str) and len(ref) <= REF_MAX_CHARS):
                ref = None
                raise _malformed(f"`{member}` is a string of at most {REF_MAX_CHARS} characters.")
            handler = self._publish_cloudevent if is_event else self._handlers.get(_type_of(frame))
            if handler is None:
                raise _malformed(f"`type` is one of {', '.join(self._handlers)}.")
            await handler(frame, ref)
        except Refused as refused:
            self._refuse(refused, ref)

    def _refuse(self, refused: Refused, ref: str | None) -> None:
        if refused.fatal:
            raise refused
        if self._call.connection is not None:
            self._call.connection.refused(refused)
        self._outbox.put(_error(refused, ref))

    async def _ping(self, frame: Frame, ref: str | None) -> None:
        self._say({"type": "pong"} if ref is None else {"type": "pong", "ref": ref})

    async def _publish(self, frame: Frame, ref: str | None) -> None:
        if "data" not in frame:
            raise _malformed("`publish` needs `data`.")
        dedupe = frame.get("dedupe", False)
        if not isinstance(dedupe, bool) or (dedupe and not ref):
            raise _malformed("`dedupe` is true or false, and needs a `ref`.")
        tracestate = _text_of(frame, "tracestate")
        await self._take_in(
            Publication(
                address=_channel_of(frame),
                data=dump(frame["data"]),
                idempotency_key=ref if dedupe else None,
                traceparent=_text_of(frame, "traceparent"),
                attributes={"tracestate": tracestate} if tracestate else {},
                value=frame["data"],
            ),
            ref,
        )

    async def _publish_cloudevent(self, frame: Frame, ref: str | None) -> None:
        """Take an event in structured mode (CloudEvents WebSockets binding 3.1): ``channel`` says where it goes."""
        content = structured({name: value for name, value in frame.items() if name not in ("channel", "sequence")})
        publication = Publication(
            address=_channel_of(frame),
            data=content.data,
            content_type=content.content_type,
            attributes=content.attributes,
        )
        await self._take_in(publication, ref)

    async def _take_in(self, publication: Publication, ref: str | None) -> None:
        """Publish, and answer once it is stored; many may be on their way."""
        if self._call.connection is not None:
            self._call.connection.received(len(publication.data))
        admitted = await admit(self._plane, self._call, publication)
        task = asyncio.create_task(self._store(admitted, ref))
        self._in_flight.add(task)
        task.add_done_callback(self._has_landed)
        while len(self._in_flight) >= IN_FLIGHT_MAX:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed

    async def _store(self, admitted: Admitted, ref: str | None) -> None:
        try:
            stored = await store(self._plane, self._call, admitted)
        except Refused as refused:
            self._refuse(refused, ref)
        except Exception:
            logger.exception("publish failed on %s", admitted.channel.address)
            self._refuse(Refused(Reason.INTERNAL), ref)
        else:
            said = {"type": "published", "id": str(stored.sequence)}
            self._say(said if ref is None else said | {"ref": ref})

    def _has_landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    async def _subscribe(self, frame: Frame, ref: str | None) -> None:
        address = _channel_of(frame)
        start = frame.get("from", "latest")
        if not isinstance(start, str | int) or isinstance(start, bool):
            raise _malformed("`from` is `earliest`, `latest`, an id or an RFC 3339 instant.")
        asked = position_of(str(start))
        interval_s = _interval(frame)
        principal = self._call.principal
        selection = select(self._plane, self._call, address)
        if address not in self._subscriptions and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise Refused(Reason.INVALID_REQUEST, f"A connection holds at most {SUBSCRIPTIONS_MAX} subscriptions.")
        position = await resolve(self._plane, selection.channel, asked)
        self._drop(address)
        subscription = Subscription(selection, principal, interval_s)

        def began(position: int) -> None:
            subscription.reading.begins_at = position
            said = {"type": "subscribed", "channel": address, "id": str(position)}
            self._say(said if ref is None else said | {"ref": ref})

        def on_gap(gap: Gap) -> None:
            self._say({"type": "gap"} | gap_members(self._plane, selection, gap))

        deliver = self._conflated(subscription, self._delivery(subscription))
        subscription.listening = await self._plane.hub.follow(
            selection.channel,
            selection.subject,
            position,
            deliver,
            began=began,
            on_gap=on_gap,
            has_room=self._outbox.has_room,
            reader=self._call.who.consumer,
        )
        subscription.reading.listening = subscription.listening
        self._subscriptions[address] = subscription
        if principal is not self._call.principal and not self._is_still_allowed(subscription):
            raise Refused(Reason.FORBIDDEN, fatal=True)

    def _delivery(self, subscription: Subscription) -> Callable[[Event], None]:
        put_event, call, reading = self._outbox.put_event, self._call, subscription.reading
        is_cloudevents = self._is_cloudevents

        def deliver(event: Event) -> None:
            if subscription.principal is not call.principal and not self._is_still_allowed(subscription):
                return
            reading.last = event
            text = event.cloudevent() if is_cloudevents else event.frame()
            put_event(text, len(event.data))

        return deliver

    def _is_still_allowed(self, subscription: Subscription) -> bool:
        """Look at the right again: the consumer, key or tier has changed. Who lost it is closed by Connections."""
        selection = subscription.selection
        if is_routed_to(self._call, selection.address) or allowed(self._call.who, selection.right):
            subscription.principal = self._call.principal
            listening = subscription.listening
            if listening is not None:
                listening.deliver = self._conflated(subscription, listening.deliver)
            return True
        return False

    def _conflated(self, subscription: Subscription, deliver: Callable[[Event], None]) -> Callable[[Event], None]:
        """Give what events are offered to, by what was asked for and by what the rights of the caller give now."""
        interval_s = max(subscription.asked_s, conflated_s(self._call.who, subscription.selection.right))
        conflation = subscription.conflation
        if conflation is not None:
            conflation.change(interval_s)
        elif interval_s:
            conflation = subscription.conflation = Conflation(interval_s, deliver, self._outbox.has_room)
        return deliver if conflation is None else conflation.offer

    def _readings(self) -> list[dict[str, Any]]:
        return told([subscription.reading for subscription in self._subscriptions.values()], self._outbox)

    def _keeps_rights(self) -> bool:
        return all(self._is_still_allowed(subscription) for subscription in self._subscriptions.values())

    async def _unsubscribe(self, frame: Frame, ref: str | None) -> None:
        address = _channel_of(frame)
        self._drop(address)
        said = {"type": "unsubscribed", "channel": address}
        self._say(said if ref is None else said | {"ref": ref})

    def _drop(self, address: str) -> None:
        subscription = self._subscriptions.pop(address, None)
        if subscription is not None:
            subscription.stop()

    async def _auth(self, frame: Frame, ref: str | None) -> None:
        """Take a newer credential of the same consumer; the connection then lives by that one."""
        token = frame.get("token")
        if not isinstance(token, str) or not token:
            raise _malformed("`auth` needs a `token`.")
        principal = await authenticate(self._plane, replace(self._call, credential=from_text(token), connection=None))
        if principal.consumer != self._call.who.consumer:
            raise Refused(Reason.FORBIDDEN, "The credential is another consumer's.", cause="auth-other-consumer")
        policies.renewed(self._call, principal)
        if self._call.connection is not None:
            self._plane.connections.live_by(self._call.connection, principal)
        if not self._keeps_rights():
            raise Refused(Reason.FORBIDDEN, "The credential lacks a right that a subscription needs.", fatal=True)
        said = {"type": "authenticated", "expires_at": principal.expires_at}
        self._say(said if ref is None else said | {"ref": ref})

    # Writing

    def _say(self, frame: Frame) -> None:
        self._outbox.put(orjson.dumps(frame).decode())

    async def _write(self) -> None:
        take, send = self._outbox.take, self._socket.send
        while True:
            texts = await take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    for text in texts:
                        await send(text)
            except TimeoutError:
                raise Refused(Reason.TOO_SLOW) from None

    # Ending

    async def _end(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> Reply:
        refused = self._ending.result() if self._ending.done() else None
        if refused is None:
            failure = _failure(reader) or _failure(writer)
            if isinstance(failure, ClientGone):
                return _left(failure)
            if isinstance(failure, Refused):
                refused = failure
            elif failure is not None:
                logger.error("stream connection failed", exc_info=failure)
                refused = Refused(Reason.INTERNAL)
            else:
                return _left(ClientGone())
        await ended(reader, writer)
        await self._take_leave(refused)
        return Reply(
            status=101,
            refused=refused,
            error_class=refused.row.live.value,
            close_code=refused.row.websocket,
            closed_by="gateway",
        )

    async def _take_leave(self, refused: Refused) -> None:
        try:
            async with asyncio.timeout(self._plane.config.close_timeout_s):
                if refused.reason is Reason.DRAINING:
                    by = datetime.now(UTC) + timedelta(seconds=refused.retry_after_s or 0)
                    await self._socket.send(orjson.dumps({"type": "reconnect", "by": rfc3339(by)}).decode())
                elif refused.reason in SAID_BEFORE_CLOSE:
                    await self._socket.send(_error(refused))
                await self._socket.close(refused.row.websocket, refused.close_reason())
        except (TimeoutError, ClientGone):
            logger.debug("a connection was gone before it could be told why")


def _bytes_of(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def _read_frame(message: str | bytes, config: Config) -> tuple[Frame, Refused | None]:
    """Read one message; a fault is given back, not raised, as nothing of the frame is known then."""
    if isinstance(message, bytes):
        return {}, _malformed("Frames are JSON text, not binary.")
    try:
        # The frame is a level of its own around the data.
        frame = parse(message, depth_max=config.json_depth_max + 1, digits_max=config.number_digits_max)
    except Refused as refused:
        return {}, refused
    if not isinstance(frame, dict):
        return {}, _malformed("A frame is a JSON object.")
    return frame, None


def _type_of(frame: Frame) -> str:
    type_ = frame.get("type")
    return type_ if isinstance(type_, str) else ""


def _channel_of(frame: Frame) -> str:
    channel = frame.get("channel")
    if not isinstance(channel, str):
        raise _malformed("`channel` is the address of a channel.")
    return channel


def _text_of(frame: Frame, name: str) -> str | None:
    text = frame.get(name)
    if text is not None and not isinstance(text, str):
        raise _malformed(f"`{name}` is a string.")
    return text


def _interval(frame: Frame) -> float:
    """Read how often a subscriber wants the latest event of each address; 0 for every event."""
    asked = frame.get("conflate")
    if asked is None:
        return 0.0
    if not isinstance(asked, str):
        raise _malformed("`conflate` is an interval, as `1s`.")
    return interval_of(asked)


def _malformed(detail: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, detail, cause="invalid-frame")


def _error(refused: Refused, ref: str | None = None) -> str:
    return orjson.dumps(refused.frame(ref)).decode()


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _left(gone: ClientGone) -> Reply:
    """Say how a connection ended whose peer, or whose server for the peer's fault, closed it."""
    if gone.code in _SERVER_CLOSED:
        refused = Refused(_SERVER_CLOSED[gone.code])
        error_class = refused.row.live.value
        return Reply(101, refused=refused, error_class=error_class, close_code=gone.code, closed_by="gateway")
    error_class = "" if gone.code in _NORMAL_CLOSE else ErrorClass.CLIENT_GONE.value
    return Reply(101, error_class=error_class, close_code=gone.code, closed_by="client")
