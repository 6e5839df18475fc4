"""The Channels consumer behind ``/v1/stream`` and every other WebSocket of the data plane.

*Consumer* is Channels' word for a class that serves a connection; elsewhere a consumer is a caller of an API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from gateway.concurrency.stopping import stop_tasks
from gateway.protocols.socket import Message, Receive, Send

logger = logging.getLogger(__name__)

Serve = Callable[[Message, Receive, Send], Awaitable[None]]
INTERNAL_ERROR = 1011


class WebSocketConsumer(AsyncConsumer):  # type: ignore[misc]
    """Serves one WebSocket through the gateway's pipeline, which authenticates the handshake before it accepts.

    Channels runs :meth:`as_asgi`: it creates a task to receive each message and dispatches it to a method, which hands
    it to the call. A server that stops reading while the application does not receive runs :meth:`as_direct` instead:
    the call receives by itself, without a task for each message.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
        self._serving: asyncio.Task[None] | None = None

    @classmethod
    def as_direct(cls, serve: Serve) -> Serve:
        """Return an ASGI application that serves each socket in the task of its server."""

        async def application(scope: Message, receive: Receive, send: Send) -> None:
            await cls(serve).run(scope, receive, send)

        return application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one socket by Channels' dispatch."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await stop_tasks(self._serving)

    async def run(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one socket in this task, from its handshake until it is closed."""
        await self._serve(scope, receive, send)

    async def websocket_connect(self, message: Message) -> None:
        """Start to serve the handshake."""
        self._inbox.put_nowait(message)
        self._serving = asyncio.create_task(self._serve_dispatched(), name="channels websocket")

    async def websocket_receive(self, message: Message) -> None:
        """Hand one message to the call; waits while the message before it has not been received."""
        await self._hand_over(message)

    async def websocket_disconnect(self, message: Message) -> None:
        """Let the call end, and stop."""
        await self._hand_over(message)
        if self._serving is not None:
            await self._serving
        raise StopConsumer

    async def _serve_dispatched(self) -> None:
        try:
            await self.run(self.scope, self._inbox.get, self.base_send)
        except Exception:
            logger.exception("a WebSocket failed")
            await self.send({"type": "websocket.close", "code": INTERNAL_ERROR})
        finally:
            while not self._inbox.empty():  # releases a message that is being handed over
                self._inbox.get_nowait()

    async def _hand_over(self, message: Message) -> None:
        if self._serving is not None and not self._serving.done():
            await self._inbox.put(message)
