"""Every change of keys: issued, changed, rotated, revoked, reported as leaked."""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit import recording
from consumers.limits import cleaned
from consumers.models import Consumer
from gateway.credentials import Malformed, digest, new_key, parse
from keys.models import Key

OVERLAP_MAX_S = 30 * 24 * 3600
LIST_MAX = 100
_SCOPE = re.compile(r"\*|(?:call|publish|subscribe|jobs):[^\s\x00-\x1f]{1,255}", re.ASCII)


def issue_key(
    *,
    consumer: Consumer,
    name: str = "",
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
    allowed_ips: list[str] | None = None,
    allowed_origins: list[str] | None = None,
    limits: list[dict[str, Any]] | None = None,
    metadata: dict[str, Any] | None = None,
    rotated_from: Key | None = None,
    by: str,
) -> tuple[Key, str]:
    """Make a key. Gives its row and its text, which nobody can read again. Raises ValidationError."""
    made = new_key(settings.KEY_PEPPER.encode())
    key = Key(
        id=made.id,
        name=name,
        consumer=consumer,
        digest=made.digest,
        scopes=_scopes(scopes or []),
        expires_at=_future(expires_at),
        allowed_ips=_networks(allowed_ips or []),
        allowed_origins=_origins(allowed_origins or []),
        limits=cleaned(limits or []),
        metadata=metadata or {},
        rotated_from=rotated_from,
    )
    return recording.create("key", key, key.id, by=by), made.text


def update_key(key: Key, *, by: str, **changes: Any) -> Key:
    """Change a key's name, rights, places, limits or expiry. Raises ValidationError."""
    readers = {
        "name": str,
        "scopes": _scopes,
        "expires_at": lambda value: value,
        "allowed_ips": _networks,
        "allowed_origins": _origins,
        "limits": cleaned,
        "metadata": dict,
    }
    for field in changes:
        if field not in readers:
            raise ValidationError({field: f"Cannot be changed; what can: {', '.join(readers)}."})
    return recording.update("key", key, key.id, {name: readers[name](value) for name, value in changes.items()}, by=by)


def rotate_key(key: Key, *, overlap_s: int = 3600, by: str) -> tuple[Key, str]:
    """Make a key like this one; this one stays valid for the overlap. Raises ValidationError for a revoked key."""
    if key.revoked_at is not None:
        raise ValidationError("A revoked key cannot be rotated; issue a new one.")
    if isinstance(overlap_s, bool) or not isinstance(overlap_s, int) or not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise ValidationError({"overlap_s": f"Must be a whole number of seconds from 0 to {OVERLAP_MAX_S}."})
    with transaction.atomic():
        made = issue_key(
            consumer=key.consumer,
            name=key.name,
            scopes=key.scopes,
            expires_at=key.expires_at,
            allowed_ips=key.allowed_ips,
            allowed_origins=key.allowed_origins,
            limits=key.limits,
            metadata=key.metadata,
            rotated_from=key,
            by=by,
        )
        if overlap_s == 0:
            revoke_key(key, reason="rotated", by=by)
        else:
            ends_at = timezone.now() + timedelta(seconds=overlap_s)
            ends_at = min(ends_at, key.expires_at) if key.expires_at else ends_at
            recording.update("key", key, key.id, {"expires_at": ends_at}, note="rotated", by=by)
    return made


def revoke_key(key: Key, *, reason: str = "", by: str) -> Key:
    """Make a key useless at once; its live connections are closed. Revoking twice changes nothing."""
    if key.revoked_at is not None:
        return key
    changes = {"revoked_at": timezone.now(), "revoked_reason": reason[:300]}
    return recording.update("key", key, key.id, changes, note=reason, by=by)


def leaked_key(text: str, *, by: str) -> Key | None:
    """Revoke a key that was found in public. None where the text is no key of ours, told in no other way."""
    try:
        key_id = parse(text.strip())
    except Malformed:
        return None
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None or not hmac.compare_digest(key.digest, digest(text.strip(), settings.KEY_PEPPER.encode())):
        return None
    return revoke_key(key, reason="leaked: reported in public", by=by)


def touch(used: dict[str, datetime]) -> None:
    """Note when keys were last used; told in batches, and no change of the configuration."""
    for key_id, at in used.items():
        Key.objects.filter(id=key_id).exclude(last_used_at__gte=at).update(last_used_at=at)


def _scopes(scopes: Any) -> list[str]:
    for scope in _list(scopes, "scopes"):
        if not _SCOPE.fullmatch(scope):
            raise ValidationError(
                {"scopes": f"`{scope}` is no scope: write call:ROUTE, publish:ADDRESS, subscribe:ADDRESS or jobs:TYPE."}
            )
    return list(dict.fromkeys(scopes))


def _networks(networks: Any) -> list[str]:
    for network in _list(networks, "allowed_ips"):
        try:
            ip_network(network, strict=False)
        except ValueError as error:
            raise ValidationError({"allowed_ips": f"{error}."}) from None
    return list(networks)


def _origins(origins: Any) -> list[str]:
    for origin in _list(origins, "allowed_origins"):
        parts = urlsplit(origin)
        if (
            parts.scheme not in ("http", "https")
            or not parts.netloc
            or parts.path
            or parts.query
            or "@" in parts.netloc
        ):
            raise ValidationError({"allowed_origins": f"`{origin}` is no origin: write https://app.example."})
    return list(origins)


def _list(values: Any, field: str) -> list[str]:
    if not isinstance(values, list) or len(values) > LIST_MAX or not all(isinstance(value, str) for value in values):
        raise ValidationError({field: f"A list of at most {LIST_MAX} texts."})
    return values


def _future(expires_at: datetime | None) -> datetime | None:
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "Must lie in the future."})
    return expires_at
