"""Sessions of operators: they end after idle time and after a while, and open no page before the second factor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.utils import timezone

from accounts import second_factor
from accounts.actor import acting
from accounts.trail import sign_out_note
from gateway.refusals import Reason, Refused
from operators.problems import CONTENT_TYPE

BEGAN, SEEN = "began_at", "seen_at"
"""Names in the session: when the operator signed in, and when it was last active, in Unix seconds."""
SEEN_PRECISION_S = 30
BACKGROUND = frozenset({"live", "last-hour"})
"""Requests that an open page makes by itself, which are no activity of an operator."""
ALWAYS = frozenset({"second-factor", "enrol", "login", "logout", "healthz", "readyz", "metrics"})
"""Pages that a session without its second factor may open; the admin's sign-in and sign-out are among them."""


@receiver(user_logged_in)
def _begin(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is not None and hasattr(request, "session"):
        request.session[BEGAN] = request.session[SEEN] = int(time.time())


class OperatorSessions:
    """Middleware: ends a session that lasted too long, and demands the second factor before anything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request as its operator, or as nobody if the session has ended."""
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or not request.user.is_authenticated:
            with acting("anonymous", _address(request)):
                return self._get_response(request)
        reason = why_ended(request, int(time.time()))
        if reason:
            sign_out_note(request, reason)
            logout(request)
        with acting(request.user.get_username() or "anonymous", _address(request)):
            return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Note the operator's activity, and refuse a page that needs the second factor first."""
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or not request.user.is_authenticated:
            return None
        name = "" if request.resolver_match is None else str(request.resolver_match.url_name)
        now = int(time.time())
        if name not in BACKGROUND and now - request.session.get(SEEN, 0) >= SEEN_PRECISION_S:
            request.session[SEEN] = now
        page = second_factor.page_before(request)
        return None if page is None or name in ALWAYS else _refused(request, page)


def why_ended(request: HttpRequest, now: int) -> str:
    """Return why the session has ended, or an empty text; one from before these bounds begins now."""
    session = request.session
    began, seen = session.setdefault(BEGAN, now), session.setdefault(SEEN, now)
    if now - seen >= settings.SESSION_IDLE_S:
        return f"after {settings.SESSION_IDLE_S} s without activity"
    return f"after {settings.SESSION_MAX_S} s" if now - began >= settings.SESSION_MAX_S else ""


def end_sessions(account: User) -> int:
    """End every session of an account, and return how many there were."""
    ended = 0
    for row in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        session = row.get_decoded()
        if session.get(SESSION_KEY) == str(account.pk) and BACKEND_SESSION_KEY in session:
            row.delete()
            ended += 1
    return ended


def _refused(request: HttpRequest, page: str) -> HttpResponse:
    """Return the redirect to a page of the second factor; programs get problem details."""
    if request.path.startswith("/api/"):
        refused = Refused(Reason.FORBIDDEN, f"This session needs its second factor first: open {reverse(page)}.")
        return JsonResponse(refused.problem(), status=refused.status, content_type=CONTENT_TYPE)
    following = request.get_full_path() if request.method == "GET" else reverse("landing")
    return HttpResponseRedirect(f"{reverse(page)}?{urlencode({'next': following})}")


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
