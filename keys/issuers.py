"""Create, update and delete JWT issuers."""

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
"""``jwt:NAME`` stands for the key in usage, in the ledger of limits and in jobs."""
FIELDS = ("issuer", "jwks_url", "audience", "algorithms", "consumer_claim")


def create_issuer(*, by: str, **fields: Any) -> JwtIssuer:
    """Create a trusted issuer with the fields of :func:`new_issuer`. Raises ValidationError."""
    row = new_issuer(**fields)
    return recording.create("issuer", row, row.name, by=by)


def new_issuer(
    *,
    name: str,
    issuer: str,
    jwks_url: str,
    audience: str,
    algorithms: list[str] | None = None,
    consumer_claim: str = "sub",
) -> JwtIssuer:
    """Return a valid issuer that is not saved. Raises ValidationError."""
    if len(name) > NAME_MAX_CHARS:
        raise ValidationError({"name": f"Must have at most {NAME_MAX_CHARS} characters."})
    return JwtIssuer(
        name=name,
        issuer=issuer,
        jwks_url=_jwks_url(jwks_url),
        audience=audience,
        algorithms=_algorithms(["RS256"] if algorithms is None else algorithms),
        consumer_claim=consumer_claim,
    )


def update_issuer(issuer: JwtIssuer, /, *, by: str, **changes: Any) -> JwtIssuer:
    """Update an issuer. Raises ValidationError."""
    return recording.update("issuer", issuer, issuer.name, changed_fields(changes), by=by)


def changed_fields(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the valid values of fields that change. Raises ValidationError."""
    cleaners = {"jwks_url": _jwks_url, "algorithms": _algorithms}
    for field in changes:
        if field not in FIELDS:
            raise ValidationError({field: f"Cannot be changed; these can: {', '.join(FIELDS)}."})
    return {field: cleaners[field](value) if field in cleaners else value for field, value in changes.items()}


def delete_issuer(issuer: JwtIssuer, *, by: str) -> None:
    """Delete an issuer; its tokens are refused from then on. Raises ValidationError."""
    recording.delete("issuer", issuer, issuer.name, by=by)


def _algorithms(names: Any) -> list[str]:
    if not isinstance(names, list | tuple) or not names or any(name not in ALGORITHMS for name in names):
        raise ValidationError({"algorithms": f"Must be a list of at least one of {', '.join(ALGORITHMS)}."})
    return list(dict.fromkeys(names))


def _jwks_url(url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or "@" in parts.netloc or parts.fragment or not str(url).isprintable():
        raise ValidationError({"jwks_url": "Must be an absolute URL that begins with https:// or http://."})
    if is_forbidden(str(parts.hostname), settings.OUTBOUND_ALLOWED_NETWORKS):
        raise ValidationError(
            {"jwks_url": "Must not be the address of a metadata service, unless OUTBOUND_ALLOWED_NETWORKS allows it."}
        )
    return str(url)
