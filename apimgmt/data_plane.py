"""The data plane of one web process: started once, whichever ASGI server runs it, and drained before it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from gateway.asgi import serve
from gateway.call import Call, Reply
from gateway.config import Config
from gateway.plane import Plane
from gateway.protocol import Protocol
from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Refused
from gateway.start import start


class DataPlane:
    """Starts a :class:`Plane` and serves it as ASGI applications for HTTP, WebSocket and lifespan.

    A server with lifespan (uvicorn) starts it before it accepts; without lifespan (Daphne) the first call does.
    """

    def __init__(
        self, configuration: Callable[[], Config], before_stop: Iterable[Callable[[], Awaitable[None]]] = ()
    ) -> None:
        self.plane: Plane | None = None
        """None until it has started."""
        self.started: Callable[[], None] = lambda: None
        """Called once the plane has started."""
        self._configuration = configuration
        self._before_stop = before_stop
        self._starting: asyncio.Lock | None = None
        self._is_stopping = False

    async def serve(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request or WebSocket."""
        await serve(self.plane or await self.start(), scope, receive, send)

    async def serve_lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        """Start before the server accepts and stop when it shuts down."""
        while (await receive())["type"] == "lifespan.startup":
            await self.start()
            await send({"type": "lifespan.startup.complete"})
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> Plane:
        """Return the plane, started by the first call. Raises if an engine is not configured or unreachable."""
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self.plane is None:
                self.plane = await start(self._configuration())
                self.started()
        return self.plane

    async def stop(self) -> None:
        """Drain open connections and disconnect from the engines; does nothing after the first call."""
        if self._is_stopping:
            return
        self._is_stopping = True
        for stop in self._before_stop:
            await stop()
        if self.plane is not None:
            await self.plane.stop()

    def count(self, refused: Refused) -> None:
        """Count a request that never became a call: malformed, too large or too slow to read."""
        if self.plane is not None:
            call = Call(protocol=Protocol.HTTP, address="", ip="")
            self.plane.meter.count(call, Reply(status=refused.status, refused=refused))
