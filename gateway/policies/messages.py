"""Messages on their way through the policies of their route: of WebSockets both ways, and events of SSE streams.

On a proxied socket a message is what was sent. On a socket of a channel it is the ``data`` of a ``publish`` frame or
of an event; on an SSE stream the ``data`` of an event. What a policy refuses ends a proxied socket, and is answered
with an error frame, or an ``error`` event, elsewhere.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Call
from gateway.channels.frames import CLOUDEVENTS, offered
from gateway.policies.made import made_of
from gateway.policies.policy import Policy
from gateway.policies.shadow import would, would_change
from gateway.refusals import SAID_BEFORE_CLOSE, Reason, Refused
from gateway.wire.strict_json import DEPTH_MAX, dump, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

REF_MAX_CHARS = 255
Message = str | bytes
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(r"\r\n|\n|\r")
_CONTROL = ("gap", "error")
"""Events that speak of the stream itself, on our own streams."""


async def judged(plane: Plane, call: Call, part: str, message: Message) -> Message | None:
    """Give a message as the route's policies want it; None where one of them drops it. Raises Refused."""
    made = made_of(call.route)  # type: ignore[arg-type]  # who comes here has a route
    for policy in made.messages_in if part == "message_in" else made.messages_out:
        if policy.is_shadow:
            await _try(plane, call, policy, part, message)
            continue
        passed: Message | None = await getattr(policy, part)(plane, call, message)
        if passed is None:
            return None
        message = passed
    return message


async def _try(plane: Plane, call: Call, policy: Policy, part: str, message: Message) -> None:
    try:
        passed = await getattr(policy, part)(plane, call, message)
    except Refused as refused:
        would(plane, call, policy, refused.cause)
        return
    if passed is None:
        would(plane, call, policy, "dropped")
    elif passed != message:
        would_change(call, policy)


class Gate:
    """The policies before one WebSocket. It stands in the socket itself: policies of a route may come and go."""

    __slots__ = ("_call", "_is_cloudevents", "_is_framed", "_max_bytes", "_plane")

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._is_framed = call.handler == "stream"
        self._is_cloudevents = CLOUDEVENTS in offered(call)
        config = plane.config
        self._max_bytes = config.stream_message_max_bytes if self._is_framed else config.proxied_message_max_bytes

    def attach(self) -> None:
        """Stand before the socket, each way that the route's policies have something to do."""
        made = made_of(self._call.route)  # type: ignore[arg-type]
        self._call.peer.gate_in = self._inward if made.messages_in else None
        self._call.peer.gate_out = self._outward if made.messages_out else None

    async def _inward(self, message: Message) -> Message | None:
        if len(message) > self._max_bytes:
            return message  # its handler refuses it for its size
        if self._is_framed:
            return await self._frame_in(message)
        try:
            return await judged(self._plane, self._call, "message_in", message)
        except Refused as refused:
            if refused.fatal or refused.reason not in SAID_BEFORE_CLOSE:
                raise
            await self._refuse(refused, None)  # it may come back later: as with the limits of tiers, the socket stays
            return None

    async def _outward(self, message: Message) -> Message | None:
        if self._is_framed:
            return await self._frame_out(message)
        return await judged(self._plane, self._call, "message_out", message)

    async def _frame_in(self, message: Message) -> Message | None:
        """Judge what a frame is to publish; other frames, and what is none, are the handler's."""
        frame = _frame(message)
        data = None if frame is None else self._published(frame)
        if frame is None or data is None:
            return message
        try:
            passed = await judged(self._plane, self._call, "message_in", data)
        except Refused as refused:
            ref = frame.get("id" if self._is_event(frame) else "ref")
            await self._refuse(await self._charged(refused, len(data)), ref)
            return None
        if passed is None or passed == data:
            return message if passed == data else None
        if self._is_event(frame) and frame.get("data_base64") is not None:
            whole = passed if isinstance(passed, bytes) else passed.encode()
            return dump(frame | {"data_base64": b64encode(whole).decode()}).decode()
        return dump(frame | {"data": _data(passed)}).decode()

    def _is_event(self, frame: dict[str, Any]) -> bool:
        return self._is_cloudevents and "specversion" in frame

    def _published(self, frame: dict[str, Any]) -> Message | None:
        """Give the data of a ``publish`` frame, or of a CloudEvent; None where there is nothing to judge."""
        if not self._is_event(frame):
            return dump(frame["data"]).decode() if frame.get("type") == "publish" and "data" in frame else None
        encoded = frame.get("data_base64")
        if encoded is None:
            return dump(frame.get("data")).decode()
        try:
            whole = b64decode(encoded, validate=True)
        except (TypeError, ValueError):
            return None  # its handler refuses it
        try:
            return whole.decode()
        except UnicodeDecodeError:
            return whole

    async def _frame_out(self, message: Message) -> Message | None:
        frame = _frame(message)
        if frame is None or not (frame.get("type") == "event" or "specversion" in frame) or "data" not in frame:
            return message
        data = dump(frame["data"]).decode()
        try:
            passed = await judged(self._plane, self._call, "message_out", data)
        except Refused as refused:
            if self._call.connection is not None:
                self._call.connection.refused(refused)
            return orjson.dumps(refused.frame() | {"id": frame.get("id")}).decode()
        if passed is None or passed == data:
            return message if passed == data else None
        return dump(frame | {"data": _data(passed)}).decode()

    async def _charged(self, refused: Refused, size: int) -> Refused:
        """Charge a message that was refused, so that what is invalid costs its sender as much; a limit's word wins."""
        connection, limiter = self._call.connection, self._plane.limiter
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
        told = ref if isinstance(ref, str) and len(ref) <= REF_MAX_CHARS else None
        await self._call.peer.send_control(orjson.dumps(refused.frame(told)).decode())


class Events:
    """The policies before the events of one SSE stream."""

    __slots__ = ("_call", "_is_between", "_plane", "_searched", "_waiting")

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._waiting = b""
        self._searched = 0
        self._is_between = True
        """What was passed on ended with an event's end."""

    async def passed(self, data: bytes) -> bytes:
        """Give what may go out of what has arrived. Raises Refused for an event that does not end."""
        self._keep_up()
        if self._is_between and not self._waiting and not made_of(self._call.route).messages_out:  # type: ignore[arg-type]
            self._is_between = data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
            return data
        if not self._is_between:
            # Policies came up in the middle of an event: the rest of it belongs to what has gone out.
            end = _EVENT_END.search(data)
            if end is None:
                return data
            self._is_between = True
            return data[: end.end()] + await self.passed(data[end.end() :])
        self._waiting += data
        out = [await self._event(block) for block in self._whole()]
        if len(self._waiting) > self._plane.config.proxied_message_max_bytes:
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, "An event of the stream is too large.", cause="answer-too-large")
        return b"".join(out)

    def _keep_up(self) -> None:
        """Go by the policies that the route names now: streams of an upstream are no connections of their own."""
        route = self._call.route
        now = self._plane.snapshot.route(route.name) if route is not None else None
        if route is not None and now is not None and now.policies is not route.policies:
            self._call.route = now if now.handler == route.handler else replace(route, policies=now.policies)

    def _whole(self) -> list[bytes]:
        """Take the events that are whole."""
        blocks, at = [], 0
        while (end := _EVENT_END.search(self._waiting, max(at, self._searched))) is not None:
            blocks.append(self._waiting[at : end.end()])
            at = self._searched = end.end()
        self._waiting = self._waiting[at:]
        self._searched = max(0, len(self._waiting) - 3)
        return blocks

    async def _event(self, block: bytes) -> bytes:
        lines = _LINE_END.split(block.decode(errors="replace"))
        data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
        others = [line for line in lines if line and not line.startswith("data")]
        if not any(line.startswith("data:") for line in lines) or self._is_control(others):
            return block
        try:
            passed = await judged(self._plane, self._call, "message_out", data)
        except Refused as refused:
            kept = [line for line in others if line.startswith("id:")]
            return _written([*kept, "event: error"], orjson.dumps(refused.problem()).decode())
        if passed is None:
            return b""
        return block if passed == data else _written(others, passed if isinstance(passed, str) else passed.decode())

    def _is_control(self, others: list[str]) -> bool:
        return self._call.handler == "events" and any(
            line.startswith("event:") and line[6:].strip() in _CONTROL for line in others
        )


def _written(others: list[str], data: str) -> bytes:
    lines = [*others, *(f"data: {line}" for line in _LINE_END.split(data)), "", ""]
    return "\n".join(lines).encode(errors="replace")


def _frame(message: Message) -> dict[str, Any] | None:
    """Read a frame; None for what is none."""
    try:
        frame = parse(message, depth_max=DEPTH_MAX + 1)
    except Refused:
        return None
    return frame if isinstance(frame, dict) else None


def _data(passed: Message) -> Any:
    """Read what a policy made of an event's data; a text that is no JSON is that text."""
    try:
        return parse(passed)
    except Refused:
        return passed if isinstance(passed, str) else passed.decode(errors="replace")
