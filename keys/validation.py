"""Validate the networks, origins and instants of keys."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

LIST_MAX = 100
NETWORK_MAX_CHARS = 50
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
"""Default ports, which browsers omit from an origin."""


def clean_networks(values: Any) -> list[str]:
    """Return the networks in CIDR notation, without duplicates. Raises ValidationError."""
    cleaned = []
    for network in _strings(values, "allowed_ips"):
        try:
            cleaned.append(str(ip_network(network[:NETWORK_MAX_CHARS], strict=False)))
        except ValueError:
            raise ValidationError({"allowed_ips": f"`{network[:100]}` is not an IP address or network."}) from None
    return list(dict.fromkeys(cleaned))


def clean_origins(values: Any) -> list[str]:
    """Return the origins as browsers send them, without duplicates. Raises ValidationError."""
    return list(dict.fromkeys(_origin(origin) for origin in _strings(values, "allowed_origins")))


def clean_expiry(at: Any) -> datetime | None:
    """Return an aware datetime of an instant or its text; without an offset it is in UTC. Raises ValidationError."""
    if at is None:
        return None
    try:
        instant = parse_datetime(at) if isinstance(at, str) else at
        if isinstance(instant, datetime):
            return instant.astimezone(UTC) if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # its offset may move it out of the calendar
        pass
    raise ValidationError({"expires_at": "Must be an RFC 3339 instant, such as 2027-01-31T12:00:00Z."})


def clean_future_expiry(at: Any) -> datetime | None:
    """Return an instant as :func:`clean_expiry` does. Raises ValidationError for one in the past, too."""
    instant = clean_expiry(at)
    if instant is not None and instant <= timezone.now():
        raise ValidationError({"expires_at": "Must be in the future."})
    return instant


def _origin(origin: str) -> str:
    try:
        parts = urlsplit(origin)
        is_origin = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_origin = False
    if not is_origin or parts.path or parts.query or parts.fragment or "@" in origin or not origin.isascii():
        raise ValidationError(
            {"allowed_origins": f"`{origin[:100]}` is not an origin: write it as https://app.example."}
        )
    return f"{parts.scheme}://{parts.netloc.removesuffix(_DEFAULT_PORT[parts.scheme])}".lower()


def _strings(values: Any, field: str) -> list[str]:
    is_list = isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)
    if not is_list or len(values) > LIST_MAX:
        raise ValidationError({field: f"Must be a list of at most {LIST_MAX} strings."})
    return list(values)
