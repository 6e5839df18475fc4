"""Policies on the events of an SSE stream. A refused event is replaced by an ``error`` event."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from gateway.call import Call
from gateway.policies.messages import MessagePolicies
from gateway.policies.route_policies import RoutePoliciesCache
from gateway.refusals import Reason, Refused
from gateway.wire.event_stream import BOM, size_of_aside

if TYPE_CHECKING:
    from gateway.snapshot.picture import Snapshot

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(r"\r\n|\n|\r")
_CONTROL_EVENTS = ("gap", "error")
"""Events about the stream itself, on the gateway's own streams."""


class PolicedEvents:
    """Passes the events of one SSE stream through its route's policies, as their bytes arrive.

    The policies are those that the route names now: streams of an upstream are not registered as connections, whose
    routes are updated.
    """

    __slots__ = ("_call", "_event_max_bytes", "_held", "_is_between", "_messages", "_routes", "_searched", "_snapshot")

    def __init__(
        self,
        call: Call,
        *,
        messages: MessagePolicies,
        routes: RoutePoliciesCache,
        snapshot: Snapshot,
        event_max_bytes: int,
    ) -> None:
        self._call = call
        self._messages = messages
        self._routes = routes
        self._snapshot = snapshot
        self._event_max_bytes = event_max_bytes
        self._held = b""
        self._searched = 0
        """How many of the held bytes are known to contain no end of an event."""
        self._is_between = True
        """What was passed on so far ended with the end of an event."""

    async def passed(self, data: bytes) -> bytes:
        """Return what may be sent of the bytes received so far. Raises Refused for an event without end."""
        self._update_route()
        if self._is_between and not self._held and not self._has_policies():
            self._is_between = data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
            return data
        if not self._is_between:
            # Policies were added in the middle of an event: the rest of it belongs to what was already sent.
            end = _EVENT_END.search(data)
            if end is None:
                return data
            self._is_between = True
            return data[: end.end()] + await self.passed(data[end.end() :])
        self._held += data
        events = [await self._event(block) for block in self._complete_events()]
        if b"\n" in data or b"\r" in data:
            size = size_of_aside(self._held)
            events.append(self._held[:size])
            self._held = self._held[size:]
            self._searched = max(0, self._searched - size)
        if len(self._held) > self._event_max_bytes:
            raise Refused(
                Reason.UPSTREAM_UNAVAILABLE,
                f"An event of the stream exceeds {self._event_max_bytes} bytes.",
                cause="answer-too-large",
            )
        return b"".join(events)

    def _has_policies(self) -> bool:
        route = self._call.route
        return route is not None and bool(self._routes.of(route).messages_out)

    def _update_route(self) -> None:
        route = self._call.route
        current = self._snapshot.route(route.name) if route is not None else None
        if route is not None and current is not None and current.policies is not route.policies:
            is_same_handler = current.handler == route.handler
            self._call.route = current if is_same_handler else replace(route, policies=current.policies)

    def _complete_events(self) -> list[bytes]:
        blocks, at = [], 0
        while (end := _EVENT_END.search(self._held, max(at, self._searched))) is not None:
            blocks.append(self._held[at : end.end()])
            at = self._searched = end.end()
        self._held = self._held[at:]
        self._searched = max(0, len(self._held) - 3)
        return blocks

    async def _event(self, block: bytes) -> bytes:
        lines = _LINE_END.split(block.removeprefix(BOM).decode(errors="replace"))
        data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
        others = [line for line in lines if line and not line.startswith("data")]
        if not any(line.startswith("data:") for line in lines) or self._is_control(others):
            return block
        try:
            passed = await self._messages.outward(self._call, data)
        except Refused as refused:
            ids = [line for line in others if line.startswith("id:")]
            return _encoded([*ids, "event: error"], orjson.dumps(refused.problem()).decode())
        if passed is None:
            return b""
        return block if passed == data else _encoded(others, passed if isinstance(passed, str) else passed.decode())

    def _is_control(self, others: list[str]) -> bool:
        return self._call.handler == "events" and any(
            line.startswith("event:") and line[6:].strip() in _CONTROL_EVENTS for line in others
        )


def _encoded(others: list[str], data: str) -> bytes:
    lines = [*others, *(f"data: {line}" for line in _LINE_END.split(data)), "", ""]
    return "\n".join(lines).encode(errors="replace")
