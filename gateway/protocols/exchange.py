"""The caller's side of an HTTP call: what every server's exchange shares, and the one over plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.concurrency.stopping import stop_soon
from gateway.connections.in_flight import recheck
from gateway.limits.bandwidth import is_charged_whole, pieces
from gateway.limits.budget import Counters
from gateway.peer import ClientGone
from gateway.protocols.socket import Receive, Send
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers, has_body

if TYPE_CHECKING:
    from gateway.plane import Plane

ANY_ORIGIN: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]


class Exchange:
    """Implements :class:`gateway.call.Exchange`, but for how bytes come and go: a server's exchange knows that."""

    __slots__ = (
        "_call", "_held", "_payers", "_plane", "_prepaid", "body_max_bytes", "bytes_in", "has_started", "is_read",
    )  # fmt: skip

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self.is_read = not has_body(call.headers)
        """Nothing of the body is left to read."""
        self.has_started = False
        """The head of the answer is on its way."""
        self.body_max_bytes = plane.config.body_max_bytes
        self.bytes_in = 0
        self._held: bytes | None = None
        """The body, read whole before its time."""
        self._prepaid = 0
        """Bytes of the body that were charged, and have not come yet."""
        self._payers: Counters = ()
        """What they were charged to: the caller's limits may be others meanwhile."""

    async def read(self) -> bytes:
        """Give the next part of the body, ``b""`` at its end. Charges ``bytes_in``. Raises Refused and ClientGone.

        Whoever may not be served any more, once it has come, is refused.
        """
        if self._held is not None:
            self.is_read = True
            body, self._held = self._held, None
            return body
        if not self.bytes_in and not self.is_read:
            await self._begin()
        while not self.is_read:
            part = await self._next()
            if not part:
                continue
            self.bytes_in += len(part)
            if self.bytes_in > self.body_max_bytes:
                raise self._too_large()
            if self._prepaid:
                self._prepaid -= len(part)
            else:
                await self._charge(part)
            return part
        return b""

    async def _next(self) -> bytes:
        """Wait for the next part of the body. A caller who may not be served any more by its end is refused."""
        part = await self._part()
        if self.is_read:
            recheck(self._plane.snapshot, self._call)
        return part

    @property
    def is_received(self) -> bool:
        """Nothing of the body is still to come from the caller."""
        return self.is_read or self._held is not None

    async def read_all(self) -> bytes:
        """Read the body to its end; ``read`` gives it again. Raises as ``read`` does."""
        if self._held is None:
            parts = []
            while part := await self.read():
                parts.append(part)
            self.replace_body(b"".join(parts))
        return self._held or b""

    def replace_body(self, body: bytes) -> None:
        """Give this body to who reads next, in place of what was read whole."""
        self._held = body
        self.is_read = not body

    async def _begin(self) -> None:
        """Look at how long the body is said to be; charge it whole where that may be. Raises Refused."""
        length = int(self._call.header(b"content-length") or 0)
        if length > self.body_max_bytes:
            raise self._too_large()
        budget, limiter = self._call.budget, self._plane.limiter
        if length and budget is not None and is_charged_whole(budget.bytes_in):
            if not limiter.charge_now(self._call, bytes_in=length):
                await limiter.charge(self._call, bytes_in=length)
            # It may have waited until its limits were others.
            self._prepaid, self._payers = length, (self._call.budget or budget).bytes_in

    def served(self) -> None:
        """Give back what was charged of a body ahead and did not come, or was of no use to who answered."""
        if self._prepaid:
            self._plane.limiter.put_back(self._payers, self._prepaid)
            self._prepaid = 0

    async def _charge(self, part: bytes) -> None:
        """Charge what has come of the body, no faster than limits let through. Raises Refused."""
        budget, limiter = self._call.budget, self._plane.limiter
        if budget is None or not budget.bytes_in or limiter.charge_now(self._call, bytes_in=len(part)):
            return
        for piece in pieces(part, budget.bytes_in):
            await limiter.charge(self._call, bytes_in=len(piece))

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head; the route's policies may add to it. Raises ClientGone."""
        call = self._call
        if call.route is not None:
            headers = self._plane.policies.outbound(call, status, headers)
        elif call.origin is not None:
            headers = [*headers, *ANY_ORIGIN]
        self.has_started = True
        await self._head(status, headers)

    async def end(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Answer in one go; policies add nothing. A caller that is gone is nobody to tell."""
        self.has_started = True
        try:
            await self._head(status, headers)
            await self.send(body, more=False)
        except ClientGone:
            return

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. Raises ClientGone."""
        raise NotImplementedError

    async def gone(self) -> None:
        """Return when the caller has hung up."""
        raise NotImplementedError

    def _too_large(self) -> Refused:
        return Refused(Reason.TOO_LARGE, f"The body holds more than {self.body_max_bytes} bytes.")

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has hung up; None stops that. Only where the body is read."""
        raise NotImplementedError

    async def _part(self) -> bytes:
        """Wait for a part of the body; sets ``is_read`` at its end. Raises ClientGone."""
        raise NotImplementedError

    async def _head(self, status: int, headers: Headers) -> None:
        raise NotImplementedError


class AsgiExchange(Exchange):
    """Over an ASGI http scope, under any server."""

    __slots__ = ("_receive", "_send", "_watcher")

    def __init__(self, plane: Plane, call: Call, receive: Receive, send: Send) -> None:
        super().__init__(plane, call)
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. Raises ClientGone."""
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except OSError as error:
            raise ClientGone from error

    async def gone(self) -> None:
        """Return when the caller has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has hung up; None stops that."""
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
        if status == 304:
            # Its Content-Length speaks of a body that is not sent, which servers take for a fault.
            headers = [header for header in headers if header[0] != b"content-length"]
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        except OSError as error:
            raise ClientGone from error
