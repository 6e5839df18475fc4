"""Key and JwtIssuer: how a consumer proves itself. Of a key only a digest is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from django.db import models

from consumers.models import Consumer, name_validator


class KeyQuerySet(models.QuerySet["Key"]):
    """Reads of keys."""

    def with_consumer(self) -> Self:
        """Read consumer and tier along."""
        return self.select_related("consumer__tier")

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self.select_related("consumer")

    def usable(self, now: datetime) -> Self:
        """Those that are neither revoked nor expired."""
        return self.filter(revoked_at=None).exclude(expires_at__lte=now)


class Key(models.Model):
    """An API key. ``id`` is public; the secret was shown once."""

    id = models.CharField(max_length=12, primary_key=True)
    name = models.CharField(max_length=100, blank=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="keys")
    digest = models.CharField(max_length=64)
    scopes = models.JSONField(default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=300, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    allowed_ips = models.JSONField(default=list, blank=True)
    allowed_origins = models.JSONField(default=list, blank=True)
    limits = models.JSONField(default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="rotations")

    objects = KeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name or 'key'} {self.id}"

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot. A revoked key stays there, so that its use is told apart."""
        return {
            "id": self.id,
            "consumer": self.consumer.name,
            "digest": self.digest,
            "scopes": self.scopes,
            "expires_at": self.expires_at.timestamp() if self.expires_at else None,
            "revoked_at": self.revoked_at.timestamp() if self.revoked_at else None,
            "allowed_ips": self.allowed_ips,
            "allowed_origins": self.allowed_origins,
            "limits": self.limits,
            "metadata": self.metadata,
        }

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.document() | {
            "name": self.name,
            "revoked_reason": self.revoked_reason,
            "rotated_from": self.rotated_from_id,
        }

    def representation(self) -> dict[str, Any]:
        """Say it as the management API does: all but the digest."""
        return {
            "id": self.id,
            "name": self.name,
            "consumer": self.consumer.name,
            "scopes": self.scopes,
            "expires_at": _instant(self.expires_at),
            "allowed_ips": self.allowed_ips,
            "allowed_origins": self.allowed_origins,
            "limits": self.limits,
            "metadata": self.metadata,
            "created_at": _instant(self.created_at),
            "last_used_at": _instant(self.last_used_at),
            "revoked_at": _instant(self.revoked_at),
            "revoked_reason": self.revoked_reason,
            "rotated_from": self.rotated_from_id,
        }


class JwtIssuerQuerySet(models.QuerySet["JwtIssuer"]):
    """Reads of issuers."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class JwtIssuer(models.Model):
    """Who may sign tokens for us: where its keys are, and which claim names the consumer."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    issuer = models.CharField(max_length=500, unique=True)
    jwks_url = models.CharField(max_length=1000)
    audience = models.CharField(max_length=500)
    algorithms = models.JSONField(default=list)
    consumer_claim = models.CharField(max_length=100, default="sub")

    objects = JwtIssuerQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        verbose_name = "JWT issuer"

    def __str__(self) -> str:
        return self.name

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot."""
        return {
            "name": self.name,
            "issuer": self.issuer,
            "jwks_url": self.jwks_url,
            "audience": self.audience,
            "algorithms": self.algorithms,
            "consumer_claim": self.consumer_claim,
        }

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.document()

    def representation(self) -> dict[str, Any]:
        """Say it as the management API and YAML do."""
        return self.document()


def _instant(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at is not None else None
