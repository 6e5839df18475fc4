"""A WebSocket over ASGI, as handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.peer import ClientGone
from gateway.refusals import Refused, cut
from gateway.wire.header_fields import Headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Gate = Callable[[str | bytes], Awaitable[str | bytes | None]]
"""Gives a message as it is to go on, None where it is not; raises Refused."""

DENIAL = "websocket.http.response"


class AsgiSocket:
    """Implements :class:`gateway.call.Socket` over an ASGI websocket scope."""

    __slots__ = ("_is_accepted", "_is_over", "_receive", "_scope", "_send", "gate_in", "gate_out")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_accepted = False
        self._is_over = False
        self.gate_in: Gate | None = None
        """What each message of the peer has to pass; None where the route's policies have nothing to do with it."""
        self.gate_out: Gate | None = None

    @property
    def is_accepted(self) -> bool:
        """``101`` was answered."""
        return self._is_accepted

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Answer ``101``. Raises ClientGone."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise ClientGone(message.get("code", 1006))
        await self._say({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers or []})
        self._is_accepted = True

    async def deny(self, refused: Refused, limits: Headers) -> None:
        """Refuse the handshake and tell the caller's limits, as plain HTTP; a server that cannot closes (bare 403)."""
        await self._receive()
        if DENIAL not in (self._scope.get("extensions") or {}):
            await self._say(
                {"type": "websocket.close", "code": refused.row.websocket, "reason": refused.close_reason()}
            )
            return
        from gateway.protocols.http import rendered  # the HTTP rendering of a refusal is that module's

        head, body = rendered(refused)
        await self._say_http(refused.status, [*head, *limits], body)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake as plain HTTP; a server that cannot is told to close (a bare 403). Raises ClientGone."""
        await self._receive()
        if DENIAL in (self._scope.get("extensions") or {}):
            await self._say_http(status, headers, body)
        else:
            await self._say({"type": "websocket.close", "code": 1000, "reason": ""})

    async def receive(self) -> str | bytes:
        """Give the next message. Raises ClientGone with the peer's close code, and what its gate raises."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self._is_over = True
                raise ClientGone(message.get("code") or 1005, message.get("reason") or "")
            text = message.get("text")
            said: str | bytes = text if text is not None else message["bytes"]
            if self.gate_in is None:
                return said
            passed = await self.gate_in(said)
            if passed is not None:
                return passed

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises ClientGone, and what its gate raises."""
        if self.gate_out is not None:
            passed = await self.gate_out(message)
            if passed is None:
                return
            message = passed
        # As ``tell`` does, without one more await for each message.
        if isinstance(message, str):
            await self._say({"type": "websocket.send", "text": message})
        else:
            await self._say({"type": "websocket.send", "bytes": message})

    async def tell(self, message: str | bytes) -> None:
        """Send one message that passes no gate: a word of our own. Raises ClientGone."""
        if isinstance(message, str):
            await self._say({"type": "websocket.send", "text": message})
        else:
            await self._say({"type": "websocket.send", "bytes": message})

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame, where there is still somebody to read it."""
        if self._is_over:
            return
        self._is_over = True
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": cut(reason)})
        except (OSError, RuntimeError):
            # The server has noticed before us that the peer is gone.
            return

    async def _say_http(self, status: int, headers: Headers, body: bytes) -> None:
        await self._say({"type": f"{DENIAL}.start", "status": status, "headers": headers})
        await self._say({"type": f"{DENIAL}.body", "body": body})

    async def _say(self, message: Message) -> None:
        try:
            await self._send(message)
        except asyncio.CancelledError:
            raise
        except (OSError, RuntimeError) as error:
            # uvicorn raises ClientDisconnected (an OSError); a RuntimeError says that the close frame went first.
            self._is_over = True
            raise ClientGone from error
