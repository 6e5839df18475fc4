"""The caller's side of a request that goes on when its caller leaves: passes the response on, and records it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.durable.first_responses import BODY_MAX_BYTES
from gateway.peer import ClientGone, Exchange
from gateway.wire.header_fields import Headers


class RecordedExchange:
    """Implements :class:`gateway.peer.Exchange`, and never raises ClientGone. The request's body was read before."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_attached = True
        self.body_max_bytes = exchange.body_max_bytes
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the head of the response has arrived."""
        self.status = 0
        self.headers: Headers = []
        self.body = bytearray()
        self.is_whole = False
        self.is_too_large = False

    def detach(self) -> None:
        """Pass nothing on any more: the caller has left, or was refused."""
        self._is_attached = False

    @property
    def is_read(self) -> bool:
        """Nothing of the request's body is left to read."""
        return self._exchange.is_read

    @property
    def bytes_in(self) -> int:
        """How many bytes of the request's body were read."""
        return self._exchange.bytes_in

    @property
    def has_started(self) -> bool:
        """The head of the response has arrived."""
        return bool(self.status)

    @property
    def has_part(self) -> bool:
        """Always: the request's body was read before."""
        return True

    @property
    def expects_continue(self) -> bool:
        """Never: the request's body was read before."""
        return False

    async def admit_body(self) -> None:
        """Do nothing: the request's body was read before."""

    async def read(self) -> bytes:
        """Return the request's body, ``b""`` at its end."""
        return await self._exchange.read()

    async def read_all(self) -> bytes:
        """Return the request's body; ``read`` returns it again."""
        return await self._exchange.read_all()

    def replace_body(self, body: bytes) -> None:
        """Replace the request's body."""
        self._exchange.replace_body(body)

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Do nothing: the request does not end with its caller."""

    def probe_with(self, part: bytes, may_send: Callable[[], bool] | None = None) -> None:
        """Do nothing: the request does not end with its caller."""

    async def gone(self) -> None:
        """Wait forever: the request does not end with its caller."""
        await asyncio.Event().wait()

    def inform(self, status: int, headers: Headers) -> None:
        """Pass an interim response on, unrecorded."""
        if self._is_attached:
            self._exchange.inform(status, headers)

    def name_status(self, status: int, phrase: bytes) -> None:
        """Pass a reason phrase on, unrecorded."""
        if self._is_attached:
            self._exchange.name_status(status, phrase)

    def trail(self, trailers: Headers) -> None:
        """Pass trailers on, unrecorded."""
        if self._is_attached:
            self._exchange.trail(trailers)

    async def start(self, status: int, headers: Headers) -> None:
        """Record the head of the response and pass it on."""
        self.status, self.headers = status, headers
        if self._is_attached:
            try:
                await self._exchange.start(status, headers)
            except ClientGone:
                self.detach()
        if not self.answered.done():
            self.answered.set_result(None)

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Record a part of the response and pass it on."""
        self.is_whole = not more
        if len(self.body) + len(body) > BODY_MAX_BYTES:
            self.is_too_large = True
            self.body.clear()
        elif not self.is_too_large:
            self.body += body
        if self._is_attached:
            try:
                await self._exchange.send(body, more=more)
            except ClientGone:
                self.detach()
