"""Logs what was refused on the operators' origin: who tried what, and from where."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from gateway.concurrency.log_throttle import LogThrottle
from operators.sign_in import address_of

logger = logging.getLogger(__name__)

LOGGED = frozenset({401, 403})
PATH_MAX_CHARS = 200


class RefusedOperators:
    """Middleware: logs answers 401 and 403, each once a minute; a stranger has one line a minute for all its calls."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._throttle = LogThrottle()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        response = self._get_response(request)
        if response.status_code in LOGGED:
            self._log(request, response.status_code)
        return response

    def _log(self, request: HttpRequest, status: int) -> None:
        address, path = request.META.get("REMOTE_ADDR", ""), request.path[:PATH_MAX_CHARS]
        user = getattr(request, "user", None)
        name = user.get_username() if user is not None else ""
        suffix = self._throttle.suffix((name, request.method, path) if name else address_of(request))
        if suffix is not None:
            who = f"the operator {name}" if name else "a stranger"
            logger.warning("refused with %d: %s %s by %s at %s%s", status, request.method, path, who, address, suffix)
