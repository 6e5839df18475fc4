"""The pages for those on call, the landing page and the documents."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.views import LoginView
from django.core.paginator import Paginator
from django.db.models import Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_POST
from django_ratelimit.decorators import ratelimit

from analytics import pages, words
from analytics.live import live
from analytics.models import ConnectionRecord, UsageMinute
from audit import bus
from gateway.nats_link import CONTROL_SUBJECT

HOUR = timedelta(hours=1)
ROWS_A_PAGE = 50
staff_only: Any = staff_member_required(login_url="/dashboards/login")


@require_GET
def landing(request: HttpRequest) -> HttpResponse:
    """Show what this is and where to go."""
    return render(request, "landing.html")


@require_GET
@staff_only  # type: ignore[untyped-decorator]
def overview(request: HttpRequest) -> HttpResponse:
    """Show what happens now: first the last hour from the roll-ups, then live."""
    since = timezone.now() - HOUR
    rows = UsageMinute.objects.filter(minute__gte=since)
    sums = rows.aggregate(
        calls=Sum("calls", default=0),
        messages_in=Sum("messages_in", default=0),
        messages_out=Sum("messages_out", default=0),
        throttled=Sum("throttled", default=0),
    )
    refused = (
        rows.exclude(outcome__in=("ok", "abandoned"))
        .values("outcome")
        .annotate(count=Sum("calls"))
        .order_by("-count")[:8]
    )
    minutes = rows.values("minute", "protocol").annotate(
        calls_=Sum("calls"), messages_=Sum("messages_in") + Sum("messages_out")
    )
    seed = {
        "minutes": [
            [row["minute"].timestamp(), row["protocol"], row["calls_"], row["messages_"]]
            for row in minutes.order_by("minute")
        ],
        "refused": {row["outcome"]: row["count"] for row in refused},
        "outcomes": words.OUTCOMES,
        "errorClasses": words.ERROR_CLASSES,
        "protocols": words.PROTOCOLS,
    }
    closed = ConnectionRecord.objects.exclude(closed_at=None).order_by("-closed_at")[:12]
    context = {
        "section": "overview",
        "seed": seed,
        "sums": sums,
        "messages": sums["messages_in"] + sums["messages_out"],
        "open": ConnectionRecord.objects.still_open().count(),
        "closed": [(row, words.ERROR_CLASSES.get(row.error_class, row.error_class)) for row in closed],
        "base_url": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "dashboards/overview.html", context)


@require_GET
@staff_only  # type: ignore[untyped-decorator]
def connections(request: HttpRequest) -> HttpResponse:
    """Show the ledger, filtered by what the address says."""
    state = request.GET.get("state", "open")
    rows = ConnectionRecord.objects.all()
    if state in ("open", "closed"):
        rows = rows.filter(closed_at__isnull=state == "open")
    chosen = {name: request.GET.get(name, "").strip() for name in ("consumer", "protocol", "error_class")}
    for name, value in chosen.items():
        if value:
            rows = rows.filter(**{name: value})
    page = Paginator(rows, ROWS_A_PAGE).get_page(request.GET.get("page"))
    context = {
        "section": "connections",
        "page": page,
        "rows": [(row, words.ERROR_CLASSES.get(row.error_class, row.error_class)) for row in page],
        "state": state,
        "chosen": chosen,
        "protocols": words.PROTOCOLS,
        "error_classes": {name: word for name, word in words.ERROR_CLASSES.items() if name},
        "query": urlencode({"state": state, **{name: value for name, value in chosen.items() if value}}),
    }
    return render(request, "dashboards/connections.html", context)


@require_POST
@staff_only  # type: ignore[untyped-decorator]
def disconnect(request: HttpRequest, connection_id: str) -> HttpResponse:
    """Close one open connection, whichever process holds it."""
    row = get_object_or_404(ConnectionRecord, pk=connection_id)
    bus.publish(f"{CONTROL_SUBJECT}.close", orjson.dumps({"connection": row.pk}))
    return redirect("/dashboards/connections")


@require_GET
@staff_only  # type: ignore[untyped-decorator]
def usage(request: HttpRequest) -> HttpResponse:
    """Show the last day by consumer and by route or channel."""
    since = timezone.now() - timedelta(days=1)
    rows = UsageMinute.objects.filter(minute__gte=since)
    sums = {name: Sum(name) for name in ("messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")}
    context = {
        "section": "usage",
        "consumers": rows.values("consumer", "tier")
        .annotate(total=Sum("calls"), **_renamed(sums))
        .order_by("-total")[:50],
        "targets": rows.values("target", "protocol")
        .annotate(total=Sum("calls"), **_renamed(sums))
        .order_by("-total")[:50],
    }
    return render(request, "dashboards/usage.html", context)


async def live_events(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Stream what happens now. The session is looked at before; the stream itself asks no database."""
    user = await request.auser()
    if not (user.is_active and user.is_staff):
        return HttpResponseForbidden("Sign in first.")
    await sync_to_async(_forget_connection)()
    return StreamingHttpResponse(
        live.watch(),
        content_type="text/event-stream; charset=utf-8",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@method_decorator(ratelimit(key="ip", rate="10/m", method="POST", block=False), name="post")
class Login(LoginView):
    """Sign-in of operators; ten tries a minute from one address."""

    template_name = "dashboards/login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Try a password."""
        if getattr(request, "limited", False):
            return render(request, "429.html", status=429, headers={"Retry-After": "60"})  # type: ignore[call-arg]
        return super().post(request, *args, **kwargs)


@require_GET
def documents(request: HttpRequest, name: str = "") -> HttpResponse:
    """Show one document, or the list of them."""
    if not name:
        return render(request, "docs/index.html", {"titles": pages.titles(), "section": "docs"})
    page = pages.page(name)
    if page is None:
        raise Http404
    return render(request, "docs/page.html", {"page": page, "titles": pages.titles(), "section": "docs"})


def _renamed(sums: dict[str, Sum]) -> dict[str, Sum]:
    return {f"all_{name}": total for name, total in sums.items()}


def _forget_connection() -> None:
    from django.db import connection

    connection.close()
