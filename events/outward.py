"""What a consumer names for us to call: looked at when it is registered, and again at each connection (gateway)."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from gateway.upstream.outbound import is_inner

URL_MAX_CHARS = 2000
RESOLVE_WITHIN_S = 1.2
_SAFE = re.compile(r"[!-~]+")
"""Printable ASCII: names of other alphabets are written in punycode, other bytes percent-encoded."""
_resolvers = ThreadPoolExecutor(4, "resolver")


def check_url(url: object, field: str = "url") -> str:
    """Give a URL that we may call. Raises ValidationError: also where its host is or resolves to an inner address."""
    if not isinstance(url, str) or not _SAFE.fullmatch(url) or len(url) > URL_MAX_CHARS or "\\" in url:
        raise ValidationError({field: f"An http or https URL of at most {URL_MAX_CHARS} printable ASCII characters."})
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ValidationError({field: "Is no URL."}) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError({field: "Begins with http:// or https:// and names a host."})
    if "@" in parts.netloc or parts.fragment:
        raise ValidationError({field: "Has no user, password or fragment."})
    if "%" in parts.hostname:
        # Some decode it, some do not: it is not to be asked which of them we are.
        raise ValidationError({field: "Its host has no percent sign."})
    _check_host(parts.hostname, port, field)
    return url


def _check_host(host: str, port: int, field: str) -> None:
    """Raise ValidationError for an inner host. A name that does not resolve now may later: connecting looks again."""
    if is_inner(host, settings.OUTBOUND_ALLOWED_NETWORKS) or any(
        is_inner(address, settings.OUTBOUND_ALLOWED_NETWORKS) for address in _addresses(host, port)
    ):
        raise ValidationError({field: "Lies in an inner network; the operator alone may allow one."})


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = _resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(RESOLVE_WITHIN_S)
    except (TimeoutError, OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]
