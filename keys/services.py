"""Every change of keys: issued, changed, rotated, revoked, reported as leaked, deleted."""

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
from gateway.credentials.api_keys import Malformed, digest, new_key, parse
from keys import validation
from keys.models import Key

OVERLAP_MAX_S = 30 * 24 * 3600
REASON_MAX_CHARS = 300
RESTORED = ("scopes", "allowed_ips", "allowed_origins", "limits", "metadata")
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "name": lambda name: name,
    "scopes": clean_scopes,
    "expires_at": validation.expiry,
    "allowed_ips": validation.networks,
    "allowed_origins": validation.origins,
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
    """Make a key. Gives its row and its text, which nobody can read again. Raises ValidationError.

    A key without scopes has no rights.
    """
    made = new_key(settings.KEY_PEPPER.encode())
    key = Key(
        id=made.id,
        name=name,
        consumer=consumer,
        digest=made.digest,
        scopes=clean_scopes([] if scopes is None else scopes),
        expires_at=validation.future(expires_at),
        allowed_ips=validation.networks([] if allowed_ips is None else allowed_ips),
        allowed_origins=validation.origins([] if allowed_origins is None else allowed_origins),
        limits=clean_limits([] if limits is None else limits),
        metadata=clean_metadata({} if metadata is None else metadata),
        rotated_from=rotated_from,
    )
    return recording.create("key", key, key.id, by=by), made.text


def update_key(key: Key, *, by: str, **changes: Any) -> Key:
    """Change a key's name, rights, places, limits, metadata or expiry. Raises ValidationError."""
    for field in changes:
        if field not in _READERS:
            raise ValidationError({field: f"Cannot be changed; what can: {', '.join(_READERS)}."})
    read = {field: _READERS[field](value) for field, value in changes.items()}
    return recording.update("key", key, key.id, read, by=by)


def restore_key(recorded: Mapping[str, Any], *, consumer: Consumer, by: str) -> Key:
    """Make a deleted key again of what the audit log recorded: the same id and secret, revoked and expired as it was.

    Raises ValidationError.
    """
    at = {
        name: datetime.fromtimestamp(recorded[name], UTC) if recorded[name] is not None else None
        for name in ("expires_at", "revoked_at")
    }
    key = Key(
        consumer=consumer,
        rotated_from=Key.objects.filter(id=recorded.get("rotated_from")).first(),
        revoked_reason=recorded.get("revoked_reason", ""),
        **at,
        **{name: recorded[name] for name in ("id", "name", "digest", *RESTORED)},
    )
    return recording.create("key", key, key.id, by=by)


def rotate_key(key: Key, *, overlap_s: int = 3600, by: str) -> tuple[Key, str]:
    """Make a key like this one; this one stays valid for the overlap, and never longer than it was.

    Raises ValidationError for a revoked or expired key.
    """
    if isinstance(overlap_s, bool) or not isinstance(overlap_s, int) or not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise ValidationError({"overlap_s": f"Must be a whole number of seconds from 0 to {OVERLAP_MAX_S}."})
    with transaction.atomic():
        recording.lock(key, key.id)
        now = timezone.now()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise ValidationError("A revoked or expired key cannot be rotated; issue a new one.")
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
            ends_at = now + timedelta(seconds=overlap_s)
            ends_at = min(ends_at, key.expires_at) if key.expires_at else ends_at
            recording.update("key", key, key.id, {"expires_at": ends_at}, note=f"rotated to {made[0].id}", by=by)
    return made


def revoke_key(key: Key, *, reason: str = "", note: str = "", by: str) -> Key:
    """Make a key useless at once; its live connections are closed. Revoking twice changes nothing.

    ``note`` stands in the audit log; the reason does where there is none.
    """
    with transaction.atomic():
        recording.lock(key, key.id)
        if key.revoked_at is not None:
            return key
        why = str(reason)[:REASON_MAX_CHARS]
        changes = {"revoked_at": timezone.now(), "revoked_reason": why}
        return recording.update("key", key, key.id, changes, note=note or why, by=by)


def delete_key(key: Key, *, by: str) -> None:
    """Revoke a key and forget it: to whoever shows it, it is one that never was. Raises ValidationError.

    As it was revoked first, going back to an earlier configuration does not make it work again.
    """
    with transaction.atomic():
        revoke_key(key, reason="deleted", by=by)
        recording.delete("key", key, key.id, by=by)


def leaked_key(text: str, *, by: str) -> Key | None:
    """Revoke a key that was found in public; the audit log names its owner, who needs another.

    None where the text is no key of ours, told in no other way.
    """
    try:
        key_id = parse(text.strip())
    except Malformed:
        return None
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None or not hmac.compare_digest(key.digest, digest(text.strip(), settings.KEY_PEPPER.encode())):
        return None
    reason, owner = "leaked: reported in public", key.consumer
    told = f" <{owner.email}>" if owner.email else ""
    return revoke_key(key, reason=reason, note=f"{reason}; its owner is {owner.name}{told}", by=by)


def touch(used: Mapping[str, datetime]) -> None:
    """Note when keys were last used, never earlier than is known; no change of the configuration, so not recorded."""
    with transaction.atomic():
        for key_id, at in used.items():
            Key.objects.filter(id=key_id).exclude(last_used_at__gte=at).update(last_used_at=at)
