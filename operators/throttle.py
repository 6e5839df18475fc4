"""Bounds on what people try by hand in the admin: signing in and making keys."""

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
    """Count one try and say whether it is one too many; where the counters are away, it is not."""
    try:
        return bool(is_ratelimited(request=request, group=group, key=key, rate=rate, method="POST", increment=True))
    except (RedisError, OSError):
        logger.warning("tries of %s are not counted: the counters do not answer", group)
        return False


def throttled_sign_in(sign_in: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Let an address try a few passwords a minute."""

    @wraps(sign_in)
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not exceeds_rate(request, "admin-sign-in", "ip", SIGN_IN_RATE):
            return sign_in(request, *args, **kwargs)
        messages.error(request, "Too many tries from your address. Wait a minute.")
        request.method = "GET"
        response = sign_in(request, *args, **kwargs)
        response.status_code = 429
        response["Retry-After"] = str(RETRY_AFTER_S)
        return response

    return view
