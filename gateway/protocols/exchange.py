"""The caller's side of an HTTP call: what the exchanges of all servers share, and the one over plain ASGI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.concurrency.stopping import stop_soon
from gateway.limit import BodyLimit
from gateway.peer import ClientGone
from gateway.policies.cors import ANY_ORIGIN
from gateway.protocols.socket import Receive, Send
from gateway.refusals import NOSNIFF, Reason, Refused
from gateway.wire.header_fields import Headers, has_body

if TYPE_CHECKING:
    from gateway.plane import Plane

HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload")
"""As on the pages. It precedes that of an upstream, since browsers obey the first one (RFC 6797 8.1)."""
WITHOUT_BODY = frozenset({204, 304})
"""A length of theirs is dropped: no body of that length follows (RFC 9110 8.6), and servers of ASGI reject it."""

TRAILERS = "http.response.trailers"
"""The extension and the message of ASGI that carry trailers; servers announce it where they can send them."""
_TAKES_TRAILERS = re.compile(rb"(?:^|[,\s])trailers(?:$|[,\s])", re.IGNORECASE)
"""The coding of ``TE`` that accepts trailers (RFC 9110 10.1.4)."""


class Exchange:
    """Implements :class:`gateway.peer.Exchange`, except for how bytes travel, which each server's subclass knows."""

    __slots__ = (
        "_buffered", "_call", "_fixed", "_is_admitted", "_limit", "_policies", "body_max_bytes", "bytes_in",
        "has_started", "is_read",
    )  # fmt: skip

    def __init__(self, plane: Plane, call: Call) -> None:
        self._call = call
        self._policies = plane.policies
        self._fixed = (HSTS,) if plane.config.public_scheme == "https" else ()
        self.is_read = not has_body(call.headers)
        """Nothing of the body is left to read."""
        self._limit = None if self.is_read else BodyLimit(plane.limiter, plane.snapshot, call)
        self.has_started = False
        """The head of the response is sent, or about to be."""
        self.body_max_bytes = plane.config.body_max_bytes
        self.bytes_in = 0
        self._buffered: bytes | None = None
        """The whole body, if it was read ahead."""
        self._is_admitted = False
        """Whether the announced length of the body was checked and charged."""

    async def read(self) -> bytes:
        """Return the next part of the body, ``b""`` at its end. Charges ``bytes_in``. Raises Refused and ClientGone.

        A caller that has lost its right to the call is refused at the end of the body.
        """
        if self._buffered is not None:
            self.is_read = True
            body, self._buffered = self._buffered, None
            return body
        limit = self._limit
        if limit is None:
            return b""
        if not self._is_admitted and not self.is_read:
            await self._begin(limit)
        while not self.is_read:
            part = await self._next(limit)
            if not part:
                continue
            self.bytes_in += len(part)
            if self.bytes_in > self.body_max_bytes:
                raise self._too_large()
            await limit.received(part)
            return part
        return b""

    async def admit_body(self) -> None:
        """Check and charge the announced length of the body before the first read. Raises Refused as a read would."""
        if self._limit is not None and not self._is_admitted:
            await self._begin(self._limit)

    @property
    def has_part(self) -> bool:
        """Whether a read returns, or raises, at once; other servers do not report what has arrived."""
        return self._buffered is not None

    @property
    def expects_continue(self) -> bool:
        """Whether the client sends the body once it is asked for it (RFC 9110 10.1.1), as the first read does."""
        return (self._call.header(b"expect") or "").lower() == "100-continue"

    async def _next(self, limit: BodyLimit) -> bytes:
        part = await self._part()
        if self.is_read:
            limit.completed()
        return part

    @property
    def is_received(self) -> bool:
        """Whether nothing of the body is still to arrive."""
        return self.is_read or self._buffered is not None

    async def read_all(self) -> bytes:
        """Read the body to its end and return it; ``read`` returns it again. Raises as ``read`` does.

        It is held, and counted as such, until the response starts. Raises Refused where too much is held.
        """
        if self._buffered is None:
            parts = []
            while part := await self.read():
                if self._limit is not None:
                    self._limit.hold(part)
                parts.append(part)
            self.replace_body(b"".join(parts))
        return self._buffered or b""

    def replace_body(self, body: bytes) -> None:
        """Replace the buffered body; the next read returns it."""
        self._buffered = body
        self.is_read = not body

    async def _begin(self, limit: BodyLimit) -> None:
        length = int(self._call.header(b"content-length") or 0)
        if length > self.body_max_bytes:
            raise self._too_large()
        await limit.begin(length)
        self._is_admitted = True

    def served(self) -> None:
        """Settle the charges of the body: the call has ended."""
        if self._limit is not None:
            self._limit.settle()

    @property
    def can_write_now(self) -> bool:
        """Return whether a part of the body can be written without waiting."""
        return False

    def write_now(self, data: bytes) -> None:
        """Write a part of the body without waiting, where the server offers that."""
        raise NotImplementedError

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim response, where the server and the caller's version of HTTP have any."""

    def name_status(self, status: int, phrase: bytes) -> None:
        """Send this reason phrase with the status, where the server can."""

    def trail(self, trailers: Headers) -> None:
        """Send trailers at the end of the body, where the server can send them and the caller accepts them."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head, as the route's policies change it. Raises ClientGone."""
        call = self._call
        if self._limit is not None:
            self._limit.release()
        headers = self._policies.outbound(call, status, headers) if call.route is not None else [*headers, *ANY_ORIGIN]
        self.has_started = True
        await self._head(status, [*self._fixed, *headers] if self._fixed else headers)

    async def end(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole response, which no policy changes. A client that is gone is ignored."""
        self.has_started = True
        try:
            await self._head(status, [*self._fixed, *headers, NOSNIFF])
            await self.send(body, more=False)
        except ClientGone:
            return

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. Raises ClientGone."""
        raise NotImplementedError

    async def gone(self) -> None:
        """Return once the client has disconnected."""
        raise NotImplementedError

    def _takes_trailers(self) -> bool:
        return any(_TAKES_TRAILERS.search(value) for name, value in self._call.headers if name == b"te")

    def _too_large(self) -> Refused:
        return Refused(Reason.TOO_LARGE, f"The body holds more than {self.body_max_bytes} bytes.")

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the client has disconnected; None cancels that. The body must have been read."""
        raise NotImplementedError

    def probe_with(self, part: bytes, may_send: Callable[[], bool] | None = None) -> None:
        """Do nothing: other servers do not report that a client has only ended its sending side."""

    async def _part(self) -> bytes:
        """Wait for a part of the body; sets ``is_read`` at its end. Raises ClientGone."""
        raise NotImplementedError

    async def _head(self, status: int, headers: Headers) -> None:
        raise NotImplementedError


class AsgiExchange(Exchange):
    """Over an ASGI http scope, under any server."""

    __slots__ = ("_extensions", "_receive", "_send", "_trailers", "_watcher")

    def __init__(
        self, plane: Plane, call: Call, receive: Receive, send: Send, extensions: Collection[str] = ()
    ) -> None:
        super().__init__(plane, call)
        self._extensions = extensions
        self._trailers: Headers | None = None
        """What follows the body, if the head has announced that something does."""
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. Raises ClientGone."""
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            if not more and self._trailers is not None:
                await self._send({"type": TRAILERS, "headers": self._trailers, "more_trailers": False})
        except OSError as error:
            raise ClientGone from error

    def trail(self, trailers: Headers) -> None:
        """Send trailers after the body, if the server can send them and the caller accepts them."""
        if self._trailers is not None:
            self._trailers = self._policies.unchanged(self._call, 0, trailers)

    async def gone(self) -> None:
        """Return once the client has disconnected."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the client has disconnected; None cancels that."""
        stop_soon(self._watcher)
        self._watcher = None
        if gone is not None:
            self._watcher = asyncio.create_task(self._watch(gone), name="caller")

    async def _watch(self, gone: Callable[[], None]) -> None:
        await self.gone()
        gone()

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.is_read = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _head(self, status: int, headers: Headers) -> None:
        dropped = {b"content-length"} if status in WITHOUT_BODY else set()
        has_trailers = status not in WITHOUT_BODY and self._can_trail(headers)
        if has_trailers:
            self._trailers = []
        else:
            dropped.add(b"trailer")
        headers = [header for header in headers if header[0] not in dropped]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        try:
            await self._send({**start, "trailers": True} if has_trailers else start)
        except OSError as error:
            raise ClientGone from error

    def _can_trail(self, headers: Headers) -> bool:
        """Return whether trailers may follow the body: a body whose length is announced has none."""
        if TRAILERS not in self._extensions or self._call.method == "HEAD" or not self._takes_trailers():
            return False
        return all(name != b"content-length" for name, _ in headers)
