"""A WebSocket over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from gateway.peer import ClientGone, Gate
from gateway.protocols.problem import render
from gateway.refusals import Refused, cut
from gateway.wire.header_fields import Headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DENIAL = "websocket.http.response"


class AsgiSocket:
    """Implements :class:`gateway.peer.Socket` over an ASGI websocket scope."""

    __slots__ = ("_is_accepted", "_is_over", "_receive", "_scope", "_send", "gate_in", "gate_out")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_accepted = False
        self._is_over = False
        self.gate_in: Gate | None = None
        """Checks each message of the peer; None if the route's policies look at none."""
        self.gate_out: Gate | None = None

    @property
    def is_accepted(self) -> bool:
        """``101`` was answered."""
        return self._is_accepted

    @property
    def subprotocols(self) -> Sequence[str]:
        """The subprotocols that the caller offers."""
        return tuple(self._scope.get("subprotocols") or ())

    @property
    def is_compressing(self) -> bool:
        """Return False: over ASGI, compression is the server's."""
        return False

    async def accept(
        self, subprotocol: str | None = None, headers: Headers | None = None, *, compress: bool = False
    ) -> None:
        """Answer ``101``; whether messages are compressed is up to the server. Raises ClientGone."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise ClientGone(message.get("code", 1006))
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers or []})
        self._is_accepted = True

    async def deny(self, refused: Refused, limits: Headers) -> None:
        """Refuse the handshake as plain HTTP, with the caller's limits; a server without that extension closes."""
        await self._receive()
        if DENIAL not in (self._scope.get("extensions") or {}):
            await self._put(
                {"type": "websocket.close", "code": refused.row.websocket, "reason": refused.close_reason()}
            )
            return
        head, body = render(refused)
        await self._respond(refused.status, [*head, *limits], body)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake as plain HTTP; a server that cannot do that closes (bare 403). Raises ClientGone."""
        await self._receive()
        if DENIAL in (self._scope.get("extensions") or {}):
            await self._respond(status, headers, body)
        else:
            await self._put({"type": "websocket.close", "code": 1000, "reason": ""})

    async def receive(self) -> str | bytes:
        """Return the next message. Raises ClientGone with the peer's close code, and what its gate raises."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self._is_over = True
                raise ClientGone(message.get("code") or 1005, message.get("reason") or "")
            text = message.get("text")
            received: str | bytes = text if text is not None else message["bytes"]
            if self.gate_in is None:
                return received
            passed = await self.gate_in(received)
            if passed is not None:
                return passed

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises ClientGone, and what its gate raises."""
        if self.gate_out is not None:
            passed = await self.gate_out(message)
            if passed is None:
                return
            message = passed
        # As ``send_control`` does, without one more await for each message.
        if isinstance(message, str):
            await self._put({"type": "websocket.send", "text": message})
        else:
            await self._put({"type": "websocket.send", "bytes": message})

    @property
    def can_write_now(self) -> bool:
        """Return False: ASGI takes messages, not frames."""
        return False

    def write_now(self, data: bytes) -> None:
        """Never called."""
        raise NotImplementedError

    def pass_with(self, pass_on: Callable[[bytes], int] | None) -> None:
        """Do nothing: ASGI delivers messages, not frames."""

    async def send_all(self, messages: Sequence[str]) -> None:
        """Send several messages. Raises as ``send`` does."""
        for message in messages:
            await self.send(message)

    async def send_control(self, message: str | bytes) -> None:
        """Send one message of the gateway's own, which passes no gate. Raises ClientGone."""
        if isinstance(message, str):
            await self._put({"type": "websocket.send", "text": message})
        else:
            await self._put({"type": "websocket.send", "bytes": message})

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame, unless the peer is gone."""
        if self._is_over:
            return
        self._is_over = True
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": cut(reason)})
        except (OSError, RuntimeError):
            # The server has already noticed that the peer is gone.
            return

    async def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        await self._put({"type": f"{DENIAL}.start", "status": status, "headers": headers})
        await self._put({"type": f"{DENIAL}.body", "body": body})

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except asyncio.CancelledError:
            raise
        except (OSError, RuntimeError) as error:
            # uvicorn raises ClientDisconnected (an OSError), or a RuntimeError after a close frame was sent.
            self._is_over = True
            raise ClientGone from error
