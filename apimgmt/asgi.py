"""The ASGI application: the data plane and Django behind one address, told apart by the path alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from django.core.asgi import get_asgi_application

from apimgmt import env
from apimgmt.body_bound import serve_bounded
from gateway.asgi import serve
from gateway.call import Call, Reply
from gateway.plane import Plane
from gateway.protocol import Protocol
from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Refused
from gateway.start import start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apimgmt.settings")
django_application: Any = get_asgi_application()
from analytics.live import live  # noqa: E402 - Django is set up by now
from apimgmt.health import scraper  # noqa: E402

DJANGO_PREFIXES = frozenset(
    {"", "admin", "api", "dashboards", "docs", "portal", "static", "healthz", "readyz", "metrics"}
)
"""First segments of the paths that Django serves; the empty one is the landing page."""
DJANGO_PREFIXES_RAW = frozenset(prefix.encode() for prefix in DJANGO_PREFIXES)


class Application:
    """Serves Django's prefixes by Django, and everything else by the data plane.

    The plane is made by the server's lifespan; under a server without one (Daphne), by the first call.
    """

    def __init__(self) -> None:
        self.plane: Plane | None = None
        self.started: Callable[[], None] = lambda: None
        """Called when the plane serves."""
        self._starting: asyncio.Lock | None = None
        self._is_stopping = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and is_djangos(scope["path"]):
            await serve_bounded(django_application, scope, receive, send)
        else:
            await serve(self.plane or await self._started(), scope, receive, send)

    async def stop(self) -> None:
        """Drain the data plane and let go of the open dashboards; asked again, do nothing."""
        if not self._is_stopping:
            self._is_stopping = True
            await live.stop()
            await scraper.stop()
            if self.plane is not None:
                await self.plane.stop()

    def count(self, refused: Refused) -> None:
        """Count what was refused before it became a call: malformed, too large or too slow to read."""
        if self.plane is not None:
            call = Call(protocol=Protocol.HTTP, address="", ip="")
            self.plane.meter.count(call, Reply(status=refused.status, refused=refused))

    async def _started(self) -> Plane:
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self.plane is None:
                self.plane = await start(env.gateway_config("web", env.number("WEB_NUMBER", 1)))
                self.started()
        return self.plane

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._started()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def is_djangos(path: str) -> bool:
    """Say whether Django serves a path: the landing page and the reserved prefixes that are not the data plane's."""
    return path.split("/", 2)[1] in DJANGO_PREFIXES if path.startswith("/") else False


def is_djangos_raw(path: bytes) -> bool:
    """Say it of a path as it came."""
    return path.split(b"/", 2)[1] in DJANGO_PREFIXES_RAW if path.startswith(b"/") else False


application = Application()
