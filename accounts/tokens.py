"""Issue and revoke tokens of the management API. A token is shown once and expires; only its digest is stored."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from accounts.actor import current
from accounts.models import Token
from audit import recording
from audit.services import record

DIGEST_CHARS = 40
"""160 bits of the SHA-256 digest of a random secret."""
NAME_MAX_CHARS = 100
ACTIVE_MAX = 50
"""How many valid tokens an operator may have."""
READY = "ready.json"
"""The name of the token that `up` makes for the first operator."""
SALT = "accounts.tokens.ready"


def issue_token(
    account: User, *, name: str, expires_at: datetime | None = None, not_after: datetime | None = None, by: str
) -> tuple[Token, str]:
    """Create a token of an operator and return it with its text, which cannot be read again.

    It expires after ``TOKEN_DAYS``, or earlier as asked, and never after ``not_after``. Raises ValidationError.
    """
    prefix = f"op_{secrets.token_hex(4)}"
    text = f"{prefix}_{secrets.token_hex(20)}"
    return _create(account, name, prefix, text, _expiry(expires_at, not_after), by), text


def issue_ready_token(account: User, *, by: str) -> str:
    """Create the token of ``ready.json``, which :func:`ready_token` can compute again, and return its text."""
    prefix = f"op_{secrets.token_hex(4)}"
    text = _derived(prefix)
    _create(account, READY, prefix, text, _expiry(None, None), by)
    return text


def ready_token(*, by: str) -> tuple[User, str | None] | None:
    """Return the operator of the first run and the token of ``ready.json``, None once it was revoked.

    One that has merely expired is replaced by another one. Returns None if `up` made no token, or it was deleted.
    """
    for token in Token.objects.filter(name=READY).select_related("account"):
        text = _derived(token.prefix)
        if digest(text) == token.digest:
            state = token.state(timezone.now())
            is_renewed = state == "expired" and token.account.is_active and token.account.is_staff
            renewed = issue_ready_token(token.account, by=by) if is_renewed else None
            return token.account, text if state == "active" else renewed
    return None


def revoke_token(token: Token, *, by: str) -> Token:
    """Revoke a token; a revoked one is returned unchanged."""
    with transaction.atomic():
        recording.lock(token, str(token))
        if token.revoked_at is None:
            before = token.recorded()
            token.revoked_at = timezone.now()
            token.save(update_fields=["revoked_at"])
            record("token", token.prefix, before=before, after=token.recorded(), note=current().note(), by=by)
    return token


def digest(text: str) -> str:
    """Return the digest that is stored of a token."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def _create(account: User, name: str, prefix: str, text: str, expires_at: datetime, by: str) -> Token:
    now = timezone.now()
    token = Token(account=account, name=name, prefix=prefix, digest=digest(text), created_at=now, expires_at=expires_at)
    if not name.strip():
        raise ValidationError({"name": "Must not be empty."})
    with transaction.atomic():
        if Token.objects.usable(now).filter(account=account).count() >= ACTIVE_MAX:
            raise ValidationError(f"{account} has {ACTIVE_MAX} valid tokens, which is the most; revoke some first.")
        token.full_clean()
        token.save(force_insert=True)
        record("token", prefix, before=None, after=token.recorded(), note=current().note(), by=by)
    return token


def _expiry(requested: datetime | None, not_after: datetime | None) -> datetime:
    """Return when a token expires. Raises ValidationError for an instant that is past or too late."""
    now = timezone.now()
    latest = now + timedelta(days=settings.TOKEN_DAYS)
    if not_after is not None:
        latest = min(latest, not_after)
    if requested is None:
        return latest
    if requested <= now:
        raise ValidationError({"expires_at": "Must be in the future."})
    if requested > latest + timedelta(minutes=1):
        raise ValidationError({"expires_at": f"Must be {latest:%Y-%m-%dT%H:%M:%SZ} at the latest."})
    return requested


def _derived(prefix: str) -> str:
    """Return the text of a token that belongs to its prefix in this data directory, so that it need not be stored."""
    return f"{prefix}_{salted_hmac(SALT, prefix, algorithm='sha256').hexdigest()[:40]}"
