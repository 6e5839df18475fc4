"""The ASGI applications: the data plane's origin, the operators' origin, and both on one port for development."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from apimgmt import env
from apimgmt.data_plane import DataPlane
from apimgmt.websocket_consumer import WebSocketConsumer
from gateway.protocols.socket import AsgiSocket, Message, Receive, Send
from gateway.refusals import Reason, Refused

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apimgmt.settings")
django_application: Any = get_asgi_application()
from analytics.live import live  # noqa: E402 - imported once Django is set up
from apimgmt import django_entry  # noqa: E402
from apimgmt.health import scraper  # noqa: E402
from apimgmt.operators_connections import proving  # noqa: E402
from apimgmt.origins import as_public_page  # noqa: E402

PUBLIC_PREFIXES = frozenset({"docs", "static", "healthz", "readyz"})
"""First segments of the paths that Django serves on the data plane's origin, without cookies."""
PUBLIC_PREFIXES_RAW = frozenset(prefix.encode() for prefix in PUBLIC_PREFIXES)
PUBLIC_STARTS = tuple(b"/" + prefix for prefix in sorted(PUBLIC_PREFIXES_RAW))
OPERATORS_PREFIXES = frozenset({"", "admin", "api", "dashboards", "portal", "metrics"})
"""First segments of the other paths of Django, on one port only in development."""


async def stop_operators_streams() -> None:
    """End the live figures of open dashboards, and disconnect from NATS."""
    await live.stop()
    await scraper.stop()


data_plane = DataPlane(
    lambda: env.gateway_config("web", env.number("WEB_NUMBER", 1)), before_stop=(stop_operators_streams,)
)


async def serve_http(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request on the data plane's origin: the public pages by Django, all others by the data plane."""
    if _first_segment(scope["path"]) in PUBLIC_PREFIXES:
        await django_entry.serve(django_application, *as_public_page(scope, receive, send))
    else:
        await data_plane.serve(scope, receive, send)


def is_public_page_raw(path: bytes) -> bool:
    """Return whether Django serves a path, as it was received, on the data plane's origin."""
    return path.startswith(PUBLIC_STARTS) and path.split(b"/", 2)[1] in PUBLIC_PREFIXES_RAW


async def serve_operators(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request on the operators' origin."""
    await django_entry.serve(django_application, scope, receive, proving(scope, send))


async def _serve_http_in_development(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request where both origins are one: pages by Django, all others by the data plane."""
    if _first_segment(scope["path"]) in PUBLIC_PREFIXES | OPERATORS_PREFIXES:
        await serve_operators(scope, receive, send)
    else:
        await data_plane.serve(scope, receive, send)


async def _refuse_socket(scope: Message, receive: Receive, send: Send) -> None:
    await AsgiSocket(scope, receive, send).deny(Refused(Reason.NOT_FOUND), [])


def _first_segment(path: str) -> str | None:
    return path.split("/", 2)[1] if path.startswith("/") else None


application = ProtocolTypeRouter(
    {
        "http": serve_http,
        "websocket": WebSocketConsumer.as_asgi(serve=data_plane.serve),
        "lifespan": data_plane.serve_lifespan,
    }
)
"""The data plane's origin, for any ASGI server."""
server_application = ProtocolTypeRouter(
    application.application_mapping | {"websocket": WebSocketConsumer.as_direct(data_plane.serve)}
)
"""The same for :mod:`gateway.server`, which applies back-pressure and so needs no dispatch by Channels."""
development_application = ProtocolTypeRouter(application.application_mapping | {"http": _serve_http_in_development})
"""Both origins on one port, for ``runserver``: an upstream's page could act as a signed-in operator there."""


def admin_application(serves: Callable[[], None] = lambda: None) -> ProtocolTypeRouter:
    """Return the operators' origin, for any ASGI server; ``serves`` is called when it starts."""

    async def serve_lifespan(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            serves()
            await send({"type": "lifespan.startup.complete"})
        await stop_operators_streams()
        await send({"type": "lifespan.shutdown.complete"})

    return ProtocolTypeRouter({"http": serve_operators, "websocket": _refuse_socket, "lifespan": serve_lifespan})


operators_application = admin_application()
