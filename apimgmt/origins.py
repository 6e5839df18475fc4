"""Keeps the two origins of the product apart: the data plane's public pages, and the operators' pages.

Browsers share cookies between the ports of a host, so the public pages neither read nor set any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Reason, Refused
from operators.problems import CONTENT_TYPE

PUBLIC = "apimgmt.is_public_page"
"""Set in the ASGI scope of a request on the data plane's origin."""
CREDENTIALS = frozenset({b"cookie", b"authorization"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
API = "/api/"
"""Its views allow the methods that they name, and refuse TRACE as any other."""
_ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
OWN_SITES = frozenset({"", "same-origin", "none"})
"""Values of ``Sec-Fetch-Site`` of requests that no other origin makes; a client that is no browser sends none."""


def as_public_page(scope: Message, receive: Receive, send: Send) -> tuple[Message, Receive, Send]:
    """Return the arguments of a request without its credentials, whose response sets no cookie."""

    async def send_without_cookies(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if header[0].lower() != b"set-cookie"]
            message = {**message, "headers": kept}
        await send(message)

    headers = [header for header in scope["headers"] if header[0] not in CREDENTIALS]
    return {**scope, "headers": headers, PUBLIC: True}, receive, send_without_cookies


def is_public(request: HttpRequest) -> bool:
    """Return whether a request came to the data plane's origin."""
    return bool(getattr(request, "scope", {}).get(PUBLIC))


class Origins:
    """Serves the public pages alone on the data plane's origin; on the operators', refuses changes by other origins."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request; no other origin may embed the answer, and no cache keeps what operators see."""
        if request.method == "TRACE" and not request.path.startswith(API):
            return _refuse(Refused(Reason.METHOD_NOT_ALLOWED, "TRACE is not served.", headers=(_ALLOW,)))
        if is_public(request):
            setattr(request, "urlconf", "apimgmt.public_urls")  # noqa: B010 - read by Django's URL resolution
        elif request.method not in SAFE_METHODS and request.headers.get("Sec-Fetch-Site", "") not in OWN_SITES:
            return _refuse(Refused(Reason.ORIGIN_NOT_ALLOWED, "A page of another origin may not change anything here."))
        response = self._get_response(request)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not is_public(request):
            response.headers.setdefault("Cache-Control", "no-store")
        return response


def _refuse(refused: Refused) -> HttpResponse:
    headers = {name.decode(): value.decode() for name, value in refused.headers}
    return JsonResponse(refused.problem(), status=refused.status, content_type=CONTENT_TYPE, headers=headers)


def links(request: HttpRequest) -> dict[str, Any]:
    """Return what templates link to: on the data plane's origin nothing of the operators'."""
    oidc_name = "" if settings.OIDC is None else settings.OIDC.name
    return {"is_operators": not is_public(request), "base_url": settings.PUBLIC_URL, "oidc_name": oidc_name}
