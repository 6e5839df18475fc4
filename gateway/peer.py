"""The caller's side of a call: the interfaces that the accepting server implements."""

from __future__ import annotations

from typing import Protocol as Interface

from gateway.wire.header_fields import Headers


class Exchange(Interface):
    """The caller's side of an HTTP or SSE call, as the accepting server lends it to a handler.

    Reading and sending raise :class:`ClientGone` once the caller has hung up.
    """

    async def read(self) -> bytes:
        """Give the next part of the body, ``b""`` at its end. Raises Refused ``too-large`` past the limit."""

    async def whole(self) -> bytes:
        """Read the body to its end; ``read`` gives it again."""

    def hold(self, body: bytes) -> None:
        """Give this body to who reads next, in place of what was read whole."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; ``more=False`` ends it."""

    async def gone(self) -> None:
        """Return when the caller has hung up."""


class Socket(Interface):
    """The caller's side of a WebSocket, as the accepting server lends it to a handler."""

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Answer ``101``."""

    async def receive(self) -> str | bytes:
        """Give the next message. Raises :class:`ClientGone` with the peer's close code once it is gone."""

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises :class:`ClientGone`."""

    async def tell(self, message: str | bytes) -> None:
        """Send a word of our own, which passes no policy. Raises :class:`ClientGone`."""

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame; never raises."""


class ClientGone(Exception):
    """The caller hung up: nothing can be sent to it any more."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
