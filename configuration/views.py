"""The reference pages: every channel and route for operators, and the built-in endpoints for everybody."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from configuration.reference import REFERENCES, Reference
from events.models import Channel, Subject
from gateway.contracts.view import PublicUrls, View
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from jobs.registry import all_types
from routes.models import Route


@never_cache
@require_GET
def reference(request: HttpRequest, which: str) -> HttpResponse:
    """Render a document as a page."""
    summary = _reference_named(which)
    context = {"title": summary.title, "groups": summary.groups(summary.written(_view(request))), "which": which}
    return render(request, "docs/reference.html", context | {"section": "docs", "is_whole": _sees_all(request)})


@never_cache
@require_GET
def document(request: HttpRequest, which: str) -> HttpResponse:
    """Return the document that the page shows."""
    return JsonResponse(_reference_named(which).written(_view(request)))


def _reference_named(which: str) -> Reference:
    if which not in REFERENCES:
        raise Http404
    return REFERENCES[which]


def _view(request: HttpRequest) -> View:
    """Return the view of a caller with every right; without the permissions it has no routes and no channels."""
    where = PublicUrls(settings.PUBLIC_URL, settings.MQTT_URL)
    principal = Principal(consumer="", key="", tier="", scopes=("*",))
    if not _sees_all(request):
        return View(principal, where)
    snapshot = Snapshot.from_documents(
        {
            "channel": [channel.document() for channel in Channel.objects.documented()],
            "route": [route.document() for route in Route.objects.documented()],
            "schema": [subject.document() for subject in Subject.objects.documented()],
        }
    )
    inputs = {type_.name: type_.schema for type_ in all_types()}
    return View(principal, where, tuple(snapshot.channels()), tuple(snapshot.routes()), snapshot.subjects(), inputs)


def _sees_all(request: HttpRequest) -> bool:
    user = request.user
    return user.is_active and user.is_staff and user.has_perms(("routes.view_route", "events.view_channel"))
