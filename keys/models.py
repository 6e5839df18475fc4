"""Key: how a consumer proves itself. Only a digest of it is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from django.db import models

from consumers.models import Consumer


class KeyQuerySet(models.QuerySet["Key"]):
    """Reads of keys."""

    def with_consumer(self) -> Self:
        """Read consumer and tier along."""
        return self.select_related("consumer__tier")

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
