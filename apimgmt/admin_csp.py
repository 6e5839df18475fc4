"""The Content-Security-Policy of the admin, whose theme needs `unsafe-eval` and inline styles; no other page does."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

RELAXED = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}


class AdminPolicy:
    """Relaxes the policy for paths under /admin/."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Attach the policy to responses of the admin."""
        response = self._get_response(request)
        if request.path.startswith("/admin/"):
            setattr(response, "_csp_update", RELAXED)  # noqa: B010 — what csp.decorators.csp_update sets
        return response
