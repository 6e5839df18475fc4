"""The ASGI application: Channels routes by protocol, and the path decides between Django and the data plane."""

from __future__ import annotations

import os
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from apimgmt import env
from apimgmt.body_bound import serve_bounded
from apimgmt.data_plane import DataPlane
from apimgmt.websocket_consumer import WebSocketConsumer
from gateway.protocols.socket import Message, Receive, Send

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apimgmt.settings")
django_application: Any = get_asgi_application()
from analytics.live import live  # noqa: E402 - imported once Django is set up
from apimgmt.health import scraper  # noqa: E402

DJANGO_PREFIXES = frozenset(
    {"", "admin", "api", "dashboards", "docs", "portal", "static", "healthz", "readyz", "metrics"}
)
"""First segments of the paths that Django serves; the empty one is the landing page."""
DJANGO_PREFIXES_RAW = frozenset(prefix.encode() for prefix in DJANGO_PREFIXES)

data_plane = DataPlane(
    lambda: env.gateway_config("web", env.number("WEB_NUMBER", 1)), before_stop=(live.stop, scraper.stop)
)


async def serve_http(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request: Django's paths by Django, all others by the data plane."""
    if is_djangos(scope["path"]):
        await serve_bounded(django_application, scope, receive, send)
    else:
        await data_plane.serve(scope, receive, send)


def is_djangos(path: str) -> bool:
    """Return whether Django serves a path: the landing page and the reserved prefixes that are not the data plane's."""
    return path.split("/", 2)[1] in DJANGO_PREFIXES if path.startswith("/") else False


def is_djangos_raw(path: bytes) -> bool:
    """Return the same for a path as it was received, percent-encoded."""
    return path.split(b"/", 2)[1] in DJANGO_PREFIXES_RAW if path.startswith(b"/") else False


application = ProtocolTypeRouter(
    {
        "http": serve_http,
        "websocket": WebSocketConsumer.as_asgi(serve=data_plane.serve),
        "lifespan": data_plane.serve_lifespan,
    }
)
"""For any ASGI server."""
server_application = ProtocolTypeRouter(
    application.application_mapping | {"websocket": WebSocketConsumer.as_direct(data_plane.serve)}
)
"""For :mod:`gateway.server`, which applies back-pressure and so needs no dispatch by Channels."""
