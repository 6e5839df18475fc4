"""The two pages of a sign-in at the provider: to it, and back from it."""

from __future__ import annotations

import hmac
import logging
import secrets
from dataclasses import astuple
from functools import lru_cache

from django.conf import settings
from django.contrib.auth import login
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET

from accounts.actor import acting, current
from accounts.oidc.http import ProviderFailed
from accounts.oidc.provider import Flow, Provider
from accounts.oidc.provider_settings import ProviderSettings
from accounts.oidc.sign_in import BY, NotAllowed, account_of
from accounts.trail import sign_in_failed, sign_in_note

logger = logging.getLogger(__name__)

FLOW_S = 600
"""How long a sign-in at the provider may take."""
SALT = "accounts.oidc"
CODE_MAX_CHARS = 4096
FAILED = "The sign-in did not work. Try again."


@require_GET
@never_cache
def begin(request: HttpRequest) -> HttpResponse:
    """Redirect to the provider; the secrets of the sign-in are in a signed cookie of this browser."""
    provider = _provider()
    flow = Flow(*(secrets.token_urlsafe(32) for _ in range(3)))
    following = request.GET.get("next", "")
    is_own = url_has_allowed_host_and_scheme(following, allowed_hosts=None) and following.startswith("/")
    try:
        response = redirect(provider.authorization_url(flow))
    except ProviderFailed as failed:
        logger.warning("OpenID Connect: %s", failed)
        return _failed(request, "The provider does not answer. Try again, or use a password.", 503)
    response.set_cookie(
        settings.OIDC_COOKIE_NAME,
        signing.dumps([*astuple(flow), following if is_own else ""], salt=SALT),
        max_age=FLOW_S,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    return response


@require_GET
@never_cache
@sensitive_variables("flow")
def callback(request: HttpRequest) -> HttpResponse:
    """Sign the operator in whom the provider has sent back; the cookie of the sign-in is used up."""
    provider = _provider()
    try:
        flow, following = _flow_of(request)
        claims = provider.claims(_code(request, provider.settings, flow), flow)
        with acting(BY, current().address):
            account = account_of(claims, provider.settings)
    except (ProviderFailed, NotAllowed) as error:
        logger.warning("OpenID Connect: %s", error)
        sign_in_failed("", f"with {BY}: {error}"[:150], request)
        response = _failed(request, str(error) if isinstance(error, NotAllowed) else FAILED, 403)
    else:
        sign_in_note(request, f"with {BY}")
        login(request, account, backend=settings.AUTHENTICATION_BACKENDS[0])
        response = redirect(following or reverse("landing"))
    response.delete_cookie(settings.OIDC_COOKIE_NAME, samesite="Lax")
    return response


def _failed(request: HttpRequest, error: str, status: int) -> HttpResponse:
    return render(request, "accounts/sign_in_failed.html", {"error": error}, status=status)


def _flow_of(request: HttpRequest) -> tuple[Flow, str]:
    """Return the sign-in that this browser began. Raises ProviderFailed."""
    try:
        *flow, following = signing.loads(request.COOKIES.get(settings.OIDC_COOKIE_NAME, ""), salt=SALT, max_age=FLOW_S)
        return Flow(*flow), following
    except (signing.BadSignature, TypeError, ValueError):
        raise ProviderFailed("this browser began no sign-in, or too long ago") from None


def _code(request: HttpRequest, provider: ProviderSettings, flow: Flow) -> str:
    """Return the code of the redirect, which must answer this sign-in (RFC 6749, RFC 9207). Raises ProviderFailed."""
    if not hmac.compare_digest(request.GET.get("state", "").encode(), flow.state.encode()):
        raise ProviderFailed("the state is not that of this sign-in")
    if request.GET.get("iss", provider.issuer) != provider.issuer:
        raise ProviderFailed("the redirect is of another issuer")
    code = request.GET.get("code", "")
    if "error" in request.GET or not 0 < len(code) <= CODE_MAX_CHARS:
        raise ProviderFailed("the provider sent no code")
    return code


def _provider() -> Provider:
    if settings.OIDC is None:
        raise Http404
    return _provider_of(settings.OIDC)


@lru_cache(maxsize=1)
def _provider_of(provider: ProviderSettings) -> Provider:
    return Provider(provider)
