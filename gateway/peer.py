"""The caller's side of a call: the interfaces that the accepting server implements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol as Interface

from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

Gate = Callable[[str | bytes], Awaitable[str | bytes | None]]
"""Returns the message of a WebSocket to pass on, or None to drop it; raises Refused."""


class Ready(Interface):
    """Where bytes that are ready can be written without waiting: by a server that offers it, past no policy."""

    @property
    def can_write_now(self) -> bool:
        """Return whether :meth:`write_now` may be called: everything sent before was read, but for a bounded rest."""

    def write_now(self, data: bytes) -> None:
        """Write the bytes of whole messages, events or packets in one go."""


class Exchange(Ready, Interface):
    """The caller's side of an HTTP or SSE call.

    Reading and sending raise :class:`ClientGone` once the client has disconnected.
    """

    body_max_bytes: int
    """The largest body that is read."""

    @property
    def is_read(self) -> bool:
        """Nothing of the body is left to read."""

    @property
    def bytes_in(self) -> int:
        """How many bytes of the body were read."""

    @property
    def has_started(self) -> bool:
        """The head of the response is being sent, or was."""

    @property
    def expects_continue(self) -> bool:
        """The client waits for ``100 Continue``, which the first read sends, before it sends the body."""

    @property
    def has_part(self) -> bool:
        """A read of the body returns, or raises, at once."""

    async def admit_body(self) -> None:
        """Check and charge the announced length of the body before the first read. Raises Refused as a read would."""

    async def read(self) -> bytes:
        """Return the next part of the body, ``b""`` at its end. Raises Refused ``too-large`` past the limit."""

    async def read_all(self) -> bytes:
        """Read the body to its end and return it; ``read`` returns it again."""

    def replace_body(self, body: bytes) -> None:
        """Replace the buffered body; the next read returns it."""

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the client has disconnected; None stops that. Only after the body was read."""

    def probe_with(self, part: bytes, may_send: Callable[[], bool] | None = None) -> None:
        """Send this part of a stream, if it may be sent then, once the client has ended its sending side.

        It may still read, or be gone altogether; only what is sent to it shows which.
        """

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim response (RFC 9110 15.2) before the response, if the caller can receive one."""

    def name_status(self, status: int, phrase: bytes) -> None:
        """Send this reason phrase with the status, if the response has it and the server can (RFC 9112 4)."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the response."""

    def trail(self, trailers: Headers) -> None:
        """Send these trailers after the last part of the body, if the caller accepts any."""

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; ``more=False`` ends it."""

    async def gone(self) -> None:
        """Return once the client has disconnected."""


class Socket(Ready, Interface):
    """The caller's side of a WebSocket."""

    gate_in: Gate | None
    """Checks each message of the peer; None if the route's policies look at none."""
    gate_out: Gate | None

    @property
    def is_accepted(self) -> bool:
        """``101`` was answered."""

    @property
    def subprotocols(self) -> Sequence[str]:
        """The subprotocols that the caller offers, in its order; a credential may be one of them."""

    @property
    def is_compressing(self) -> bool:
        """Messages are sent compressed, and so must be what is ready (:mod:`gateway.wire.deflate`)."""

    async def accept(
        self, subprotocol: str | None = None, headers: Headers | None = None, *, compress: bool = False
    ) -> None:
        """Answer ``101``; ``compress`` accepts an offer of compression, if the client makes one."""

    async def deny(self, refused: Refused, limits: Headers) -> None:
        """Refuse the handshake as plain HTTP, with the caller's limits. Raises :class:`ClientGone`."""

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake as plain HTTP. Raises :class:`ClientGone`."""

    async def receive(self) -> str | bytes:
        """Return the next message. Raises :class:`ClientGone` with the peer's close code once it is gone."""

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises :class:`ClientGone`."""

    async def send_all(self, messages: Sequence[str]) -> None:
        """Send several messages, in as few writes as possible. Raises as ``send`` does."""

    def pass_with(self, pass_on: Callable[[bytes], int] | None) -> None:
        """Offer what arrives to this function while the socket is being read, before it is parsed.

        The function takes whole messages at its start, and returns how many bytes they had. A server that has no
        access to the bytes never calls it.
        """

    async def send_control(self, message: str | bytes) -> None:
        """Send a message of the gateway's own, which no policy sees. Raises :class:`ClientGone`."""

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame; never raises."""


class ClientGone(Exception):
    """The client has disconnected: nothing can be sent to it any more."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
