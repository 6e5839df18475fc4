"""Pages of an operator's own account: the second factor at sign-in, its enrolment, and its recovery codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import second_factor
from accounts.models import Authenticator, Token
from accounts.qr import svg
from accounts.trail import sign_in_failed
from operators.sign_in import attempt

WRONG = "This code is wrong, or was used already. Wait for the next one."


@require_GET
@never_cache
@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Render the operator's account: its second factor and its tokens."""
    authenticator = second_factor.authenticator_of(_account(request))
    context = {
        "section": "account",
        "authenticator": authenticator,
        "codes_left": authenticator.recovery_codes.count() if authenticator else 0,
        "is_required": settings.REQUIRE_SECOND_FACTOR,
        "tokens": Token.objects.filter(account=_account(request)).count(),
    }
    return render(request, "accounts/account.html", context)


@require_http_methods(["GET", "POST"])
@never_cache
@sensitive_post_parameters("code")
@login_required
def prove(request: HttpRequest) -> HttpResponse:
    """Ask for a code of the authenticator app or a recovery code, and open the session with it."""
    if second_factor.page_before(request) != "second-factor":
        return redirect(_following(request))
    error = ""
    if request.method == "POST":
        authenticator = _proved(request)
        if authenticator is not None:
            second_factor.mark_proved(request, authenticator)
            return redirect(_following(request))
        error = WRONG
    context = {"error": error, "next": _following(request)}
    return render(request, "accounts/prove.html", context, status=400 if error else 200)


@require_http_methods(["GET", "POST"])
@never_cache
@sensitive_post_parameters("code")
@login_required
def enrol(request: HttpRequest) -> HttpResponse:
    """Show a new secret as a QR code and as text, and confirm it by its first code."""
    operator = _account(request)
    if second_factor.authenticator_of(operator) is not None:
        return redirect("account")
    error = ""
    if request.method == "POST":
        with attempt(request, f"enrolment of {operator.get_username()}") as made:
            confirmed = second_factor.confirm(operator, request.POST.get("code", ""), by=operator.get_username())
            if confirmed is not None:
                made.succeed()
        if confirmed is not None:
            authenticator, codes = confirmed
            second_factor.mark_proved(request, authenticator)
            return _show_codes(request, codes)
        error = WRONG
    waiting = second_factor.begin_enrolment(operator)
    context = {
        "error": error,
        "next": _following(request),
        "qr": mark_safe(svg(second_factor.uri_of(waiting))),  # noqa: S308 - made of numbers
        "secret": second_factor.secret_text(waiting),
        "is_required": settings.REQUIRE_SECOND_FACTOR,
    }
    return render(request, "accounts/enrol.html", context, status=400 if error else 200)


@require_POST
@never_cache
@sensitive_post_parameters("code")
@login_required
def recovery_codes(request: HttpRequest) -> HttpResponse:
    """Replace the recovery codes, which needs a code, and show the new ones once."""

    def renew(authenticator: Authenticator) -> HttpResponse:
        codes = second_factor.renew_recovery_codes(authenticator, by=request.user.get_username())
        return _show_codes(request, codes)

    return _with_code(request, renew)


@require_POST
@never_cache
@sensitive_post_parameters("code")
@login_required
def remove_second_factor(request: HttpRequest) -> HttpResponse:
    """Remove the operator's own second factor, which needs a code."""

    def remove(authenticator: Authenticator) -> HttpResponse:
        second_factor.remove(authenticator, by=request.user.get_username())
        messages.success(request, "Your second factor is removed.")
        return redirect("account")

    return _with_code(request, remove)


def _with_code(request: HttpRequest, act: Callable[[Authenticator], HttpResponse]) -> HttpResponse:
    """Act with the authenticator whose code the form contains, or show that it is wrong."""
    authenticator = _proved(request)
    if authenticator is not None:
        return act(authenticator)
    messages.error(request, WRONG)
    return redirect("account")


def _proved(request: HttpRequest) -> Authenticator | None:
    """Return the authenticator whose code the form contains, or None and record it. Raises Refused if too many."""
    operator = _account(request)
    with attempt(request, f"second factor of {operator.get_username()}") as made:
        authenticator = second_factor.prove(operator, request.POST.get("code", ""))
        if authenticator is not None:
            made.succeed()
    if authenticator is None:
        sign_in_failed(operator.get_username(), "wrong code of the second factor", request)
    return authenticator


def _show_codes(request: HttpRequest, codes: list[str]) -> HttpResponse:
    return render(
        request, "accounts/recovery_codes.html", {"section": "account", "codes": codes, "next": _following(request)}
    )


def _following(request: HttpRequest) -> str:
    """Return the path on this origin that the request names as the next one, or the account's page."""
    path = request.POST.get("next") or request.GET.get("next") or ""
    is_own = url_has_allowed_host_and_scheme(path, allowed_hosts=None) and path.startswith("/")
    return path if is_own else reverse("account")


def _account(request: HttpRequest) -> User:
    return cast("User", request.user)
