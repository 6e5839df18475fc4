"""The admin's own Content-Security-Policy: its theme evaluates expressions and styles, which no other page may."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

RELAXED = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}


class AdminPolicy:
    """Relaxes the policy under /admin/ alone."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, and say what the page may do."""
        response = self._get_response(request)
        if request.path.startswith("/admin/"):
            setattr(response, "_csp_update", RELAXED)  # noqa: B010 — what csp.decorators.csp_update sets
        return response
