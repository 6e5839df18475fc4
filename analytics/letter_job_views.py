"""Dashboard pages that redrive or discard many dead letters: first the question, then the progress of the job."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from analytics.filters import faults
from analytics.views import operators_only
from events import letter_jobs
from events.api import DeadLetterFilters
from events.letter_job_models import DeadLetterJob, LetterAction
from events.models import DeadLetter
from operators.filters import EVERY

LETTERS = "events.view_deadletter"
RIGHTS = {LetterAction.REDRIVE: "events.change_deadletter", LetterAction.DISCARD: "events.delete_deadletter"}
ID_DIGITS_MAX = 18


@require_http_methods(["GET", "POST"])
@operators_only(LETTERS)  # type: ignore[untyped-decorator]
def settle(request: HttpRequest, action: str) -> HttpResponse:
    """Ask whether to redrive or discard the letters that the filters select; once confirmed, start the job.

    Only letters that were counted on the page that was confirmed are settled.
    """
    if not request.user.has_perm(RIGHTS[LetterAction(action)]):
        raise PermissionDenied
    filters = request.GET if request.method == "GET" else QueryDict(request.POST.get("filters", ""))
    errors = _faults(filters)
    selection = {name: str(value).strip() for name, value in filters.items() if name != EVERY}
    if request.method == "GET" or errors:
        return _question(request, action, filters, {} if errors else selection, errors)
    last_id = request.POST.get("last_id", "")
    if not (last_id.isascii() and last_id.isdigit() and len(last_id) <= ID_DIGITS_MAX):
        return _question(request, action, filters, selection, [])
    try:
        job = letter_jobs.start_job(
            action=action, selection=selection, last_id=int(last_id), by=request.user.get_username()
        )
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return redirect("dead-letters")
    return redirect("letter-job", job.id)


@require_GET
@operators_only(LETTERS)  # type: ignore[untyped-decorator]
def progress(request: HttpRequest, job_id: str) -> HttpResponse:
    """Render a job and its progress; the page reloads itself until the job has ended."""
    job = get_object_or_404(DeadLetterJob, pk=job_id)
    context = {"section": "dead-letters", "job": job, "may_cancel": request.user.has_perm(RIGHTS[LetterAction.REDRIVE])}
    return render(request, "dashboards/letter_job.html", context)


@require_POST
@operators_only(RIGHTS[LetterAction.REDRIVE])  # type: ignore[untyped-decorator]
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Cancel a job that has not ended."""
    letter_jobs.cancel_job(get_object_or_404(DeadLetterJob, pk=job_id), by=request.user.get_username())
    return redirect("letter-job", job_id)


def _question(
    request: HttpRequest, action: str, filters: QueryDict, selection: dict[str, Any], errors: list[str]
) -> HttpResponse:
    found = letter_jobs.preview(selection) if not errors else {"total": 0, "channels": [], "last_id": 0}
    context = {
        "section": "dead-letters",
        "action": action,
        "verb": letter_jobs.WORDS[action],
        "is_danger": action == LetterAction.DISCARD,
        "filters": filters.urlencode(),
        "selection": selection,
        "faults": errors,
        **found,
    }
    return render(request, "dashboards/letter_question.html", context, status=400 if errors else 200)


def _faults(filters: QueryDict) -> list[str]:
    """Return what is wrong with the filters, which must select something or be ``all=true``."""
    found = faults(DeadLetterFilters(filters, DeadLetter.objects.none()), filters, (EVERY,))
    if filters.get(EVERY) not in (None, "true"):
        found.append(f"{EVERY}: Must be `true`.")
    elif EVERY in filters and len(filters) > 1:
        found.append(f"{EVERY}: Cannot be combined with filters.")
    elif not filters:
        found.append(f"{EVERY}: Name the letters by a filter, or add `{EVERY}=true` for every one.")
    return found
