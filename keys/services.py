"""Issue, update, rotate, revoke and delete keys."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit import recording
from consumers.limits import clean_limits
from consumers.metadata import clean_metadata
from consumers.models import Consumer
from consumers.scopes import clean_scopes
from gateway.credentials.api_keys import MalformedKey, digest, new_key, parse
from keys import validation
from keys.models import Key

OVERLAP_MAX_S = 30 * 24 * 3600
REASON_MAX_CHARS = 300
RESTORED = ("scopes", "allowed_ips", "allowed_origins", "limits", "metadata")
_CLEANERS: Mapping[str, Callable[[Any], Any]] = {
    "name": lambda name: name,
    "scopes": clean_scopes,
    "expires_at": validation.clean_expiry,
    "allowed_ips": validation.clean_networks,
    "allowed_origins": validation.clean_origins,
    "limits": clean_limits,
    "metadata": clean_metadata,
}


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
    """Issue a key and return its row and its text, which cannot be read again. Raises ValidationError.

    A key without scopes has no rights.
    """
    new = new_key(settings.KEY_PEPPER.encode())
    key = Key(
        id=new.id,
        name=name,
        consumer=consumer,
        digest=new.digest,
        scopes=clean_scopes([] if scopes is None else scopes),
        expires_at=validation.clean_future_expiry(expires_at),
        allowed_ips=validation.clean_networks([] if allowed_ips is None else allowed_ips),
        allowed_origins=validation.clean_origins([] if allowed_origins is None else allowed_origins),
        limits=clean_limits([] if limits is None else limits),
        metadata=clean_metadata({} if metadata is None else metadata),
        rotated_from=rotated_from,
    )
    return recording.create("key", key, key.id, by=by), new.text


def update_key(key: Key, *, by: str, **changes: Any) -> Key:
    """Update the name, scopes, networks, origins, limits, metadata or expiry of a key. Raises ValidationError."""
    for field in changes:
        if field not in _CLEANERS:
            raise ValidationError({field: f"Cannot be changed; these can: {', '.join(_CLEANERS)}."})
    cleaned = {field: _CLEANERS[field](value) for field, value in changes.items()}
    return recording.update("key", key, key.id, cleaned, by=by)


def restore_key(recorded: Mapping[str, Any], *, consumer: Consumer, by: str) -> Key:
    """Recreate a deleted key from its record: with its id and secret, and revoked or expired if it was.

    Raises ValidationError.
    """
    instants = {
        name: datetime.fromtimestamp(recorded[name], UTC) if recorded[name] is not None else None
        for name in ("expires_at", "revoked_at")
    }
    key = Key(
        consumer=consumer,
        rotated_from=Key.objects.filter(id=recorded.get("rotated_from")).first(),
        revoked_reason=recorded.get("revoked_reason", ""),
        **instants,
        **{name: recorded[name] for name in ("id", "name", "digest", *RESTORED)},
    )
    return recording.create("key", key, key.id, by=by)


def rotate_key(key: Key, *, overlap_s: int = 3600, by: str) -> tuple[Key, str]:
    """Issue a copy of a key and return it as :func:`issue_key` does.

    The old key stays valid for the overlap, or until its own expiry if that is earlier. Raises ValidationError, also
    for a revoked or expired key.
    """
    if isinstance(overlap_s, bool) or not isinstance(overlap_s, int) or not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise ValidationError({"overlap_s": f"Must be a whole number of seconds from 0 to {OVERLAP_MAX_S}."})
    with transaction.atomic():
        recording.lock(key, key.id)
        now = timezone.now()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise ValidationError("A revoked or expired key cannot be rotated; issue a new one.")
        issued = issue_key(
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
            ends_at = now + timedelta(seconds=overlap_s)
            ends_at = min(ends_at, key.expires_at) if key.expires_at else ends_at
            recording.update("key", key, key.id, {"expires_at": ends_at}, note=f"rotated to {issued[0].id}", by=by)
    return issued


def revoke_key(key: Key, *, reason: str = "", note: str = "", by: str) -> Key:
    """Revoke a key and close its open connections. A revoked key is returned unchanged.

    ``note`` is for the audit log, and defaults to the reason.
    """
    with transaction.atomic():
        recording.lock(key, key.id)
        if key.revoked_at is not None:
            return key
        reason = str(reason)[:REASON_MAX_CHARS]
        changes = {"revoked_at": timezone.now(), "revoked_reason": reason}
        return recording.update("key", key, key.id, changes, note=note or reason, by=by)


def delete_key(key: Key, *, by: str) -> None:
    """Revoke a key and delete it; it is then refused as an unknown key. Raises ValidationError.

    As its record is that of a revoked key, a rollback does not make it valid again.
    """
    with transaction.atomic():
        revoke_key(key, reason="deleted", by=by)
        recording.delete("key", key, key.id, by=by)


def leaked_key(text: str, *, by: str) -> Key | None:
    """Revoke a key that was found in public; the audit log names its owner, who needs another.

    Returns None for any text that is not an issued key, whatever is wrong with it.
    """
    try:
        key_id = parse(text.strip())
    except MalformedKey:
        return None
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None or not hmac.compare_digest(key.digest, digest(text.strip(), settings.KEY_PEPPER.encode())):
        return None
    reason, owner = "leaked: reported in public", key.consumer
    email = f" <{owner.email}>" if owner.email else ""
    return revoke_key(key, reason=reason, note=f"{reason}; its owner is {owner.name}{email}", by=by)


def touch(used: Mapping[str, datetime]) -> None:
    """Update when keys were last used, never to an earlier instant. It is not configuration, so not recorded."""
    with transaction.atomic():
        for key_id, at in used.items():
            Key.objects.filter(id=key_id).exclude(last_used_at__gte=at).update(last_used_at=at)
