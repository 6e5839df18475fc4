"""Dashboard pages of durable subscriptions and dead letters."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_filters import FilterSet

from analytics import kept_words
from analytics.filters import PAGE, faults
from analytics.views import ROWS_A_PAGE, operators_only
from audit import bus
from events import letters, subscription_status
from events.api import DeadLetterFilters
from events.models import DeadLetter, Subscription
from events.subscription_api import SubscriptionFilters

SUBSCRIPTIONS, LETTERS = "events.view_subscription", "events.view_deadletter"
REDRIVE, DISCARD = "events.change_deadletter", "events.delete_deadletter"


@require_GET
@operators_only(SUBSCRIPTIONS)  # type: ignore[untyped-decorator]
def subscriptions(request: HttpRequest) -> HttpResponse:
    """Render the durable subscriptions, on each page those with the greatest lag first."""
    _, context = _filtered(request, SubscriptionFilters, Subscription.objects.documented(), "subscriptions")
    known = subscription_status.healths() if context["page"] else {}
    rows = [subscription_status.shown(row, known.get(row.id, {})) for row in context["page"]]
    rows.sort(key=lambda row: -(row["lag"]["events"] or 0))
    context |= {"rows": rows, "types": ("webhook", "pull"), "states": ("active", "paused", "ended")}
    return render(request, "dashboards/subscriptions.html", context, status=400 if context["faults"] else 200)


@require_GET
@operators_only(LETTERS)  # type: ignore[untyped-decorator]
def dead_letters(request: HttpRequest) -> HttpResponse:
    """Render the dead letters, newest first."""
    filters, context = _filtered(request, DeadLetterFilters, DeadLetter.objects.defer("event"), "dead-letters")
    context |= {
        "reasons": filters.qs.order_by().values("channel", "reason").annotate(count=Count("id")).order_by("-count")[:20]
        if not context["faults"]
        else [],
        "kept": kept_words.of_letters(),
        "may_redrive": request.user.has_perm(REDRIVE),
        "may_discard": request.user.has_perm(DISCARD),
    }
    return render(request, "dashboards/dead_letters.html", context, status=400 if context["faults"] else 200)


@require_POST
@operators_only(REDRIVE)  # type: ignore[untyped-decorator]
def redrive(request: HttpRequest, letter_id: int) -> HttpResponse:
    """Redrive one dead letter."""
    try:
        letters.redrive(get_object_or_404(DeadLetter, pk=letter_id), by=request.user.get_username())
        messages.success(request, "1 event was redriven.")
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    except bus.Unavailable:
        messages.error(request, "The event log does not answer; nothing was redriven.")
    return _back(request)


@require_http_methods(["GET", "POST"])
@operators_only(DISCARD)  # type: ignore[untyped-decorator]
def discard(request: HttpRequest, letter_id: int) -> HttpResponse:
    """Ask whether to discard one dead letter; once confirmed, discard it."""
    letter = get_object_or_404(DeadLetter.objects.defer("event"), pk=letter_id)
    if request.method == "GET":
        context = {"section": "dead-letters", "letter": letter, "filters": request.GET.urlencode()}
        return render(request, "dashboards/letter_discard.html", context)
    letters.discard(letter, by=request.user.get_username())
    messages.success(request, "1 event was discarded.")
    return _back(request)


def _filtered(request: HttpRequest, kind: type[FilterSet], rows: Any, section: str) -> tuple[FilterSet, dict[str, Any]]:
    query = request.GET.dict()
    filters = kind(query, rows)
    wrong = faults(filters, request.GET, (PAGE,))
    page = Paginator(rows.none() if wrong else filters.qs, ROWS_A_PAGE).get_page(query.pop(PAGE, 1))
    chosen = {name: value for name, value in query.items() if value}
    return filters, {
        "section": section, "page": page, "faults": wrong, "chosen": chosen, "query": urlencode(chosen),
    }  # fmt: skip


def _back(request: HttpRequest) -> HttpResponse:
    filters = QueryDict(request.POST.get("filters", "")).urlencode()
    return redirect(f"{reverse('dead-letters')}?{filters}")
