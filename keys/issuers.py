"""Every change of JWT issuers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from audit import recording
from gateway.snapshot.documents import ALGORITHMS
from gateway.upstream.outbound import is_forbidden
from keys.models import JwtIssuer

NAME_MAX_CHARS = 36
"""``jwt:NAME`` is the key of its tokens' holders in usage, in the ledger and in jobs."""
FIELDS = ("issuer", "jwks_url", "audience", "algorithms", "consumer_claim")


def create_issuer(
    *,
    name: str,
    issuer: str,
    jwks_url: str,
    audience: str,
    algorithms: list[str] | None = None,
    consumer_claim: str = "sub",
    by: str,
) -> JwtIssuer:
    """Trust an issuer. Raises ValidationError."""
    if len(name) > NAME_MAX_CHARS:
        raise ValidationError({"name": f"At most {NAME_MAX_CHARS} characters."})
    row = JwtIssuer(
        name=name,
        issuer=issuer,
        jwks_url=_jwks_url(jwks_url),
        audience=audience,
        algorithms=_algorithms(["RS256"] if algorithms is None else algorithms),
        consumer_claim=consumer_claim,
    )
    return recording.create("issuer", row, name, by=by)


def update_issuer(issuer: JwtIssuer, /, *, by: str, **changes: Any) -> JwtIssuer:
    """Change an issuer. Raises ValidationError."""
    readers = {"jwks_url": _jwks_url, "algorithms": _algorithms}
    for field in changes:
        if field not in FIELDS:
            raise ValidationError({field: f"Cannot be changed; what can: {', '.join(FIELDS)}."})
    read = {field: readers[field](value) if field in readers else value for field, value in changes.items()}
    return recording.update("issuer", issuer, issuer.name, read, by=by)


def delete_issuer(issuer: JwtIssuer, *, by: str) -> None:
    """Trust an issuer no more. Raises ValidationError where it is gone."""
    recording.delete("issuer", issuer, issuer.name, by=by)


def _algorithms(named: Any) -> list[str]:
    if not isinstance(named, list | tuple) or not named or any(name not in ALGORITHMS for name in named):
        raise ValidationError({"algorithms": f"A list of at least one of {', '.join(ALGORITHMS)}."})
    return list(dict.fromkeys(named))


def _jwks_url(url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or "@" in parts.netloc or parts.fragment or not str(url).isprintable():
        raise ValidationError({"jwks_url": "An absolute URL that begins with https:// or http://."})
    if is_forbidden(str(parts.hostname), settings.OUTBOUND_ALLOWED_NETWORKS):
        raise ValidationError({"jwks_url": "Is a link-local address; OUTBOUND_ALLOWED_NETWORKS may allow it."})
    return str(url)
