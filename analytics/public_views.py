"""Public pages: the landing page and the documents."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET

from analytics import pages


@require_GET
def landing(request: HttpRequest) -> HttpResponse:
    """Render the landing page."""
    return render(request, "landing.html")


@require_GET
def documents(request: HttpRequest) -> HttpResponse:
    """Render the list of documents."""
    return render(request, "docs/index.html", {"entries": pages.entries(), "section": "docs"})


@require_GET
def document(request: HttpRequest, name: str) -> HttpResponse:
    """Render one document."""
    page = pages.page(name)
    if page is None:
        raise Http404
    return render(request, "docs/page.html", {"page": page, "entries": pages.entries(), "section": "docs"})


@require_GET
@cache_control(max_age=3600)
def picture(request: HttpRequest, name: str) -> HttpResponse:
    """Return a picture of the documents."""
    content = pages.picture(name)
    if content is None:
        raise Http404
    return HttpResponse(content, content_type="image/png")
