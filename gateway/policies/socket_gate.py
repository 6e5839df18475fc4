"""Policies on the messages of a WebSocket, in both directions.

On a proxied WebSocket a message is what was sent. On a WebSocket of a channel it is the ``data`` of a ``publish``
frame, of a CloudEvent or of an event. A refusal closes a proxied WebSocket, and is answered with an error frame on one
of a channel.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Call
from gateway.channels.frames import CLOUDEVENTS, offered
from gateway.policies.messages import Message, MessagePolicies
from gateway.refusals import SENT_BEFORE_CLOSE, Refused
from gateway.wire.strict_json import DEPTH_MAX, dump, parse

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.limiter import Limiter
    from gateway.policies.route_policies import RoutePolicies

REF_MAX_CHARS = 255


class SocketGate:
    """Passes the messages of one WebSocket through its route's policies.

    The WebSocket calls it for each message, so that policies can come and go while the connection is open.
    """

    __slots__ = ("_call", "_is_channel", "_is_cloudevents", "_limiter", "_max_bytes", "_messages")

    def __init__(self, call: Call, messages: MessagePolicies, limiter: Limiter, config: Config) -> None:
        self._call = call
        self._messages = messages
        self._limiter = limiter
        self._is_channel = call.handler == "stream"
        self._is_cloudevents = CLOUDEVENTS in offered(call)
        self._max_bytes = config.stream_message_max_bytes if self._is_channel else config.proxied_message_max_bytes

    def attach(self, policies: RoutePolicies) -> None:
        """Attach to the WebSocket, in the directions in which the policies have something to do."""
        self._call.peer.gate_in = self._inward if policies.messages_in else None
        self._call.peer.gate_out = self._outward if policies.messages_out else None

    async def _inward(self, message: Message) -> Message | None:
        if len(message) > self._max_bytes:
            return message  # the handler refuses it for its size
        if self._is_channel:
            return await self._frame_in(message)
        try:
            return await self._messages.inward(self._call, message)
        except Refused as refused:
            if refused.fatal or refused.reason not in SENT_BEFORE_CLOSE:
                raise
            # The client may send it again later: as with the limits of tiers, the connection stays open.
            await self._refuse(refused, None)
            return None

    async def _outward(self, message: Message) -> Message | None:
        if self._is_channel:
            return await self._frame_out(message)
        return await self._messages.outward(self._call, message)

    async def _frame_in(self, message: Message) -> Message | None:
        """Pass on the event that a frame publishes; all other input is left to the handler."""
        frame = _frame(message)
        data = None if frame is None else self._published(frame)
        if frame is None or data is None:
            return message
        try:
            passed = await self._messages.inward(self._call, data)
        except Refused as refused:
            ref = frame.get("id" if self._is_event(frame) else "ref")
            await self._refuse(await self._charge(refused, len(data)), ref)
            return None
        if passed is None or passed == data:
            return message if passed == data else None
        if self._is_event(frame) and frame.get("data_base64") is not None:
            payload = passed if isinstance(passed, bytes) else passed.encode()
            return dump(frame | {"data_base64": b64encode(payload).decode()}).decode()
        return dump(frame | {"data": _json_or_text(passed)}).decode()

    def _is_event(self, frame: dict[str, Any]) -> bool:
        return self._is_cloudevents and "specversion" in frame

    def _published(self, frame: dict[str, Any]) -> Message | None:
        """Return the data of a ``publish`` frame or a CloudEvent, None where there is nothing for policies."""
        if not self._is_event(frame):
            return dump(frame["data"]).decode() if frame.get("type") == "publish" and "data" in frame else None
        encoded = frame.get("data_base64")
        if encoded is None:
            return dump(frame.get("data")).decode()
        try:
            payload = b64decode(encoded, validate=True)
        except (TypeError, ValueError):
            return None  # the handler refuses it
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return payload

    async def _frame_out(self, message: Message) -> Message | None:
        frame = _frame(message)
        if frame is None or not (frame.get("type") == "event" or "specversion" in frame) or "data" not in frame:
            return message
        data = dump(frame["data"]).decode()
        try:
            passed = await self._messages.outward(self._call, data)
        except Refused as refused:
            if self._call.connection is not None:
                self._call.connection.refused(refused)
            return orjson.dumps(refused.frame() | {"id": frame.get("id")}).decode()
        if passed is None or passed == data:
            return message if passed == data else None
        return dump(frame | {"data": _json_or_text(passed)}).decode()

    async def _charge(self, refused: Refused, size: int) -> Refused:
        """Charge a refused message as one that is accepted; return the refusal of a limit instead, if there is one."""
        connection, limiter = self._call.connection, self._limiter
        if connection is not None:
            connection.received(size)
        try:
            if not limiter.charge_now(self._call, messages_in=1, bytes_in=size):
                await limiter.charge(self._call, messages_in=1, bytes_in=size)
        except Refused as limited:
            return limited
        return refused

    async def _refuse(self, refused: Refused, ref: Any) -> None:
        if refused.fatal:
            raise refused
        if self._call.connection is not None:
            self._call.connection.refused(refused)
        echoed_ref = ref if isinstance(ref, str) and len(ref) <= REF_MAX_CHARS else None
        await self._call.peer.send_control(orjson.dumps(refused.frame(echoed_ref)).decode())


def _frame(message: Message) -> dict[str, Any] | None:
    """Return the frame that a message holds, None where it holds none."""
    try:
        frame = parse(message, depth_max=DEPTH_MAX + 1)
    except Refused:
        return None
    return frame if isinstance(frame, dict) else None


def _json_or_text(passed: Message) -> Any:
    """Parse what a policy made of an event's data; text that is not JSON is returned as a string."""
    try:
        return parse(passed)
    except Refused:
        return passed if isinstance(passed, str) else passed.decode(errors="replace")
