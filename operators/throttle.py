"""Rate limits of the admin: signing in and issuing keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django_ratelimit.core import is_ratelimited
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

SIGN_IN_RATE = "10/m"
KEYS_RATE = "60/m"
RETRY_AFTER_S = 60


def exceeds_rate(request: HttpRequest, group: str, key: str, rate: str) -> bool:
    """Count an attempt and return whether it exceeds the rate; False while the counters are unavailable."""
    try:
        return bool(is_ratelimited(request=request, group=group, key=key, rate=rate, method="POST", increment=True))
    except (RedisError, OSError):
        logger.warning("attempts of %s are not counted: the counters are unavailable", group)
        return False


def throttled_sign_in(sign_in: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Limit the sign-in attempts of each IP address to ``SIGN_IN_RATE``."""

    @wraps(sign_in)
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not exceeds_rate(request, "admin-sign-in", "ip", SIGN_IN_RATE):
            return sign_in(request, *args, **kwargs)
        messages.error(request, "Too many attempts from your IP address. Try again in a minute.")
        request.method = "GET"
        response = sign_in(request, *args, **kwargs)
        response.status_code = 429
        response["Retry-After"] = str(RETRY_AFTER_S)
        return response

    return view
