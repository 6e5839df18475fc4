"""Checks URLs that the gateway is to call when they are registered; the gateway checks again when it connects."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from gateway.upstream.outbound import is_inner

URL_MAX_CHARS = 2000
RESOLVE_WITHIN_S = 1.2
RESOLVER_THREADS = 4
_SAFE = re.compile(r"[!-~]+")
"""Printable ASCII: internationalized names must be in punycode, other bytes percent-encoded."""


@cache
def _resolvers() -> ThreadPoolExecutor:
    """Return the threads that resolve names, started by the first look-up: a resolver that hangs blocks no request."""
    return ThreadPoolExecutor(RESOLVER_THREADS, "resolver")


def check_url(url: object, field: str = "url") -> str:
    """Return a URL that may be called. Raises ValidationError, also if its host is or resolves to an internal IP."""
    if not isinstance(url, str) or not _SAFE.fullmatch(url) or len(url) > URL_MAX_CHARS or "\\" in url:
        raise ValidationError(
            {field: f"Must be an http or https URL of at most {URL_MAX_CHARS} printable ASCII characters."}
        )
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ValidationError({field: "Is not a valid URL."}) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError({field: "Must begin with http:// or https:// and name a host."})
    if "@" in parts.netloc or parts.fragment:
        raise ValidationError({field: "Must not have a user, password or fragment."})
    if "%" in parts.hostname:
        # Libraries differ in whether they decode it.
        raise ValidationError({field: "Its host must not contain a percent sign."})
    _check_host(parts.hostname, port, field)
    return url


def _check_host(host: str, port: int, field: str) -> None:
    """Raise ValidationError for an internal host. A name that does not resolve is accepted: connecting checks it."""
    if is_inner(host, settings.OUTBOUND_ALLOWED_NETWORKS) or any(
        is_inner(address, settings.OUTBOUND_ALLOWED_NETWORKS) for address in _addresses(host, port)
    ):
        raise ValidationError(
            {field: "Is in an internal network; only the operator can allow it (OUTBOUND_ALLOWED_NETWORKS)."}
        )


def _addresses(host: str, port: int) -> list[str]:
    try:
        results = _resolvers().submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(RESOLVE_WITHIN_S)
    except (TimeoutError, OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in results]
