"""Browsers that have signed in before: a signed cookie names the browser and the accounts that it has proved."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.core import signing
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from gateway.refusals import Reason, Refused

KNOWN_S = 180 * 24 * 3600
ACCOUNTS_MAX = 5
SALT = "operators.known_devices"
_SIGNED_IN = "_signed_in_account"


def device_of(request: HttpRequest, account: str) -> str | None:
    """Return the name of the browser if it has signed in to the account before, else None."""
    device, accounts = _cookie_of(request)
    return device if _digest(account) in accounts else None


class SignIns:
    """Middleware: remembers the browser that has signed in, and renders the refusal of a sign-in as a page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request; if it signed an operator in, with the cookie of a known browser."""
        response = self._get_response(request)
        account = getattr(request, _SIGNED_IN, None)
        if account is not None:
            _remember(request, response, account)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Render a refusal for too many attempts, or too many at once, as a page; others are not for here."""
        if not isinstance(exception, Refused) or exception.reason not in (Reason.RATE_LIMITED, Reason.OVERLOADED):
            return None
        response = render(request, "429.html", {"refused": exception}, status=exception.status)
        response["Retry-After"] = str(max(1, round(exception.retry_after_s or 0)))
        return response


@receiver(user_logged_in)
def _signed_in(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is not None:
        setattr(request, _SIGNED_IN, user.get_username())


def _remember(request: HttpRequest, response: HttpResponse, account: str) -> None:
    device, accounts = _cookie_of(request)
    digest = _digest(account)
    known = [digest, *(other for other in accounts if other != digest)][:ACCOUNTS_MAX]
    response.set_cookie(
        settings.DEVICE_COOKIE_NAME,
        signing.dumps([device or secrets.token_hex(8), *known], salt=SALT),
        max_age=KNOWN_S,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _cookie_of(request: HttpRequest) -> tuple[str | None, list[str]]:
    """Return the name of the browser and the accounts that it has proved; None and none if it is not known."""
    try:
        device, *accounts = signing.loads(
            request.COOKIES.get(settings.DEVICE_COOKIE_NAME, ""), salt=SALT, max_age=KNOWN_S
        )
    except (signing.BadSignature, ValueError, TypeError):
        return None, []
    return device, accounts


def _digest(account: str) -> str:
    return blake2b(account.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
