"""Dashboard pages of operators, and their sign-in."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.views import LoginView
from django.core.paginator import Paginator
from django.db import connection
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseForbidden,
    JsonResponse,
    QueryDict,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from analytics import kept_words, limit_reports, reports, words
from analytics.filters import PAGE, ConnectionFilters, LimitFilters, UsageFilters, faults
from analytics.live import live
from analytics.models import ConnectionRecord, LimitMinute, UsageMinute
from analytics.services import disconnect as disconnect_now
from audit import bus

ROWS_A_PAGE = 50
LEDGER = "analytics.view_connectionrecord"
USAGE = "analytics.view_usageminute"
DISCONNECT = "analytics.delete_connectionrecord"
STATES = {"open": "open", "closed": "closed", "all": "open and closed"}


def operators_only(permission: str) -> Any:
    """Require staff with a permission: redirect anonymous users to the sign-in, refuse others with 403."""

    def decorate(view: Any) -> Any:
        allowed = permission_required(permission, raise_exception=True)(view)
        return never_cache(staff_member_required(allowed, login_url="/dashboards/login"))

    return decorate


@require_GET
@operators_only(USAGE)  # type: ignore[untyped-decorator]
def overview(request: HttpRequest) -> HttpResponse:
    """Render the overview: the last hour from the roll-ups, which the page then updates live."""
    if request.GET:
        return _unknown_parameters(request)
    closed = reports.just_closed() if request.user.has_perm(LEDGER) else []
    seed = reports.last_hour(timezone.now()) | {
        "closed": closed,
        "outcomes": words.OUTCOMES,
        "errorClasses": words.ERROR_CLASSES,
        "protocols": words.PROTOCOLS,
    }
    context = {
        "section": "overview",
        "seed": seed,
        "open": sum(seed["open"].values()),
        "hour_calls": sum(row[2] for row in seed["minutes"]),
        "hour_messages": sum(row[3] for row in seed["minutes"]),
        "protocols": words.PROTOCOLS,
    }
    return render(request, "dashboards/overview.html", context)


@require_GET
@operators_only(USAGE)  # type: ignore[untyped-decorator]
def last_hour(request: HttpRequest) -> HttpResponse:
    """Return the overview's last hour as JSON; an open page requests it every minute."""
    if request.GET:
        return _unknown_parameters(request)
    return JsonResponse(reports.last_hour(timezone.now()))


@require_GET
@operators_only(LEDGER)  # type: ignore[untyped-decorator]
def connections(request: HttpRequest) -> HttpResponse:
    """Render the connection ledger, filtered by the query string."""
    query = request.GET.dict()
    state = query.pop("state", "open")
    filters = ConnectionFilters(query if state == "all" else query | {"state": state}, ConnectionRecord.objects.all())
    errors = faults(filters, request.GET, (PAGE,))
    page = Paginator(filters.qs.none() if errors else filters.qs, ROWS_A_PAGE).get_page(query.pop(PAGE, 1))
    chosen = {name: value for name, value in query.items() if value}
    context = {
        "section": "connections",
        "page": page,
        "rows": [(row, words.end_text(row.error_class)) for row in page],
        "faults": errors,
        "kept": kept_words.of_connections(),
        "state": state,
        "states": STATES,
        "chosen": chosen,
        "protocols": words.PROTOCOLS,
        "error_classes": {name: word for name, word in words.ERROR_CLASSES.items() if name},
        "query": urlencode({"state": state, **chosen}),
        "may_disconnect": request.user.has_perm(DISCONNECT),
    }
    return render(request, "dashboards/connections.html", context, status=400 if errors else 200)


@require_POST
@operators_only(DISCONNECT)  # type: ignore[untyped-decorator]
def disconnect(request: HttpRequest, connection_id: str) -> HttpResponse:
    """Close one open connection, whichever process holds it."""
    row = get_object_or_404(ConnectionRecord, pk=connection_id)
    if row.closed_at is None:
        try:
            disconnect_now(row, by=request.user.get_username())
        except bus.Unavailable:
            messages.error(request, "NATS is unavailable; the connection was not closed.")
        else:
            messages.success(request, f"{words.PROTOCOLS[row.protocol]} connection of {row.consumer} is being closed.")
    filters = QueryDict(request.POST.get("filters", "")).urlencode()
    return redirect(f"{reverse('connections')}?{filters}")


@require_GET
@operators_only(USAGE)  # type: ignore[untyped-decorator]
def usage(request: HttpRequest) -> HttpResponse:
    """Render the usage of a period, filtered by the query string."""
    query = request.GET.dict()
    period = query.pop("period", "day")
    filters = UsageFilters(query, UsageMinute.objects.all())
    errors = faults(filters, request.GET, ("period",))
    if period not in reports.PERIODS:
        errors, period = [*errors, f"period: {period} is none of {', '.join(reports.PERIODS)}."], "day"
    report = reports.usage(filters.qs.none() if errors else filters.qs, period, timezone.now())
    context = {
        "section": "usage",
        "report": report,
        "seed": {"slots": report["slots"], "slotSeconds": report["slot_s"], "protocols": words.PROTOCOLS}
        | {"periodSeconds": reports.PERIODS[period][1].total_seconds()},
        "faults": errors,
        "kept": kept_words.of_usage(),
        "shortfall": reports.shortfall(period, settings.RETENTION.usage_days),
        "period": period,
        "periods": {name: title for name, (title, _) in reports.PERIODS.items()},
        "chosen": {name: value for name, value in query.items() if value},
        "protocols": words.PROTOCOLS,
    }
    return render(request, "dashboards/usage.html", context, status=400 if errors else 200)


@require_GET
@operators_only(USAGE)  # type: ignore[untyped-decorator]
def limits(request: HttpRequest) -> HttpResponse:
    """Render consumers near a limit, refusals, and refusals in shadow mode."""
    query = request.GET.dict()
    period = query.pop("period", "hour")
    filters = LimitFilters(query, LimitMinute.objects.all())
    errors = faults(filters, request.GET, ("period",))
    if period not in reports.PERIODS:
        errors, period = [*errors, f"period: {period} is none of {', '.join(reports.PERIODS)}."], "hour"
    words_of_period, length = reports.PERIODS[period]
    now = timezone.now()
    rows = filters.qs.none() if errors else filters.qs
    context = {
        "section": "limits",
        "report": limit_reports.limits(rows, now - length, now),
        "faults": errors,
        "kept": kept_words.of_limits(),
        "shortfall": reports.shortfall(period, settings.RETENTION.limits_days),
        "period": period,
        "period_words": words_of_period.lower(),
        "periods": {name: title for name, (title, _) in reports.PERIODS.items()},
        "chosen": {name: value for name, value in query.items() if value},
    }
    return render(request, "dashboards/limits.html", context, status=400 if errors else 200)


async def live_events(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Stream live figures. The session is checked first; the stream itself uses no database connection."""
    user = await request.auser()
    if not (user.is_active and user.is_staff and await user.ahas_perm(USAGE)):
        return HttpResponseForbidden("Sign in first.")
    if request.GET:
        return _unknown_parameters(request)
    await sync_to_async(_leave_database)()
    return StreamingHttpResponse(
        live.watch(),
        content_type="text/event-stream; charset=utf-8",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _unknown_parameters(request: HttpRequest) -> HttpResponse:
    names = ", ".join(request.GET)
    return HttpResponse(f"Unknown parameters: {names}.", status=400, content_type="text/plain; charset=utf-8")


class Login(LoginView):
    """Sign-in of operators."""

    template_name = "dashboards/login.html"
    redirect_authenticated_user = True


def _leave_database() -> None:
    """Close the database connection that the session check opened, in the thread that opened it."""
    connection.close()
