"""Tokens of the management API, the second factors of operators, and their identities at an identity provider."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Lower

from audit.configured import Represented, rfc3339


class TokenQuerySet(models.QuerySet["Token"]):
    """Queries of tokens."""

    def usable(self, now: datetime) -> Self:
        """Return the tokens that are neither revoked nor expired."""
        return self.filter(revoked_at=None, expires_at__gt=now)

    def visible_to(self, operator: User) -> Self:
        """Return the operator's own tokens; with the right to view tokens, all."""
        return self if operator.has_perm("accounts.view_token") else self.filter(account=operator)


class Token(Represented):
    """A token of the management API. Its text was shown once; only a digest is stored."""

    digest = models.CharField(max_length=40, unique=True)
    prefix = models.CharField(max_length=20)
    name = models.CharField(max_length=100)
    account = models.ForeignKey(User, models.CASCADE, related_name="tokens")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def state(self, now: datetime) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"

    def representation(self) -> dict[str, Any]:
        """Return the token without its digest."""
        return {
            "prefix": self.prefix,
            "name": self.name,
            "account": self.account.get_username(),
            **{name: _instant(getattr(self, name)) for name in ("created_at", "expires_at")},
            **{name: _instant(getattr(self, name)) for name in ("last_used_at", "revoked_at")},
        }

    def recorded(self) -> dict[str, Any]:
        """Return what the audit log keeps of the token."""
        return {name: value for name, value in self.representation().items() if name != "last_used_at"}


class Authenticator(models.Model):
    """The app that shows an operator's codes (TOTP); its secret is derived from ``salt`` and is not stored."""

    account = models.OneToOneField(User, models.CASCADE, related_name="authenticator")
    salt = models.CharField(max_length=32)
    created_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=-1)
    """The time step of the last code that was accepted; no code of it or of an earlier one is accepted again."""
    failures = models.PositiveIntegerField(default=0)
    """Wrong codes since the last right one."""
    blocked_until = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        permissions = (("reset_authenticator", "Can reset the second factor of operators"),)

    def __str__(self) -> str:
        return f"authenticator of {self.account}"


class RecoveryCode(models.Model):
    """The digest of a code that proves the second factor once, for somebody who has lost the authenticator."""

    authenticator = models.ForeignKey(Authenticator, models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint("authenticator", "digest", name="recovery_code_once"),)

    def __str__(self) -> str:
        return f"recovery code of {self.authenticator.account}"


class Identity(models.Model):
    """An account's identity at an OpenID Connect provider: the only thing that a later sign-in is matched by."""

    account = models.ForeignKey(User, models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=500)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint("issuer", "subject", name="identity_once"),)
        verbose_name_plural = "identities"

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


def account_with_email(email: str) -> User | None:
    """Return the only account with an e-mail address, in any case; None if there is none or more than one."""
    found = list(User.objects.annotate(lowered=Lower("email")).filter(lowered=email.lower()).exclude(email="")[:2])
    return found[0] if len(found) == 1 else None


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)
