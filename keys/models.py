"""Key and JwtIssuer: the credentials of consumers. Of a key only a digest is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.db import models

from audit.configured import Configured
from audit.ordered_json import OrderedJSONField
from consumers.models import Consumer, name_validator


class KeyQuerySet(models.QuerySet["Key"]):
    """Queries of keys."""

    def with_consumer(self) -> Self:
        """Select the consumer and its tier with each key."""
        return self.select_related("consumer__tier")

    def documented(self) -> Self:
        """Select all that documents need."""
        return self.select_related("consumer")

    def usable(self, now: datetime) -> Self:
        """Return the keys that are neither revoked nor expired."""
        return self.filter(revoked_at=None).exclude(expires_at__lte=now)


class Key(Configured):
    """An API key. Its ``id`` is public; its secret was shown once, when it was issued."""

    id = models.CharField(max_length=12, primary_key=True)
    name = models.CharField(max_length=100, blank=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="keys")
    digest = models.CharField(max_length=64)
    scopes = OrderedJSONField(default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=300, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    allowed_ips = OrderedJSONField(default=list, blank=True)
    allowed_origins = OrderedJSONField(default=list, blank=True)
    limits = OrderedJSONField(default=list, blank=True)
    metadata = OrderedJSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="rotations")

    identity = "id"
    published = (
        "id", "consumer", "digest", "scopes", "expires_at", "revoked_at", "allowed_ips", "allowed_origins", "limits",
        "metadata",
    )  # fmt: skip
    """A revoked key stays in the snapshot, so that it is refused as revoked and not as unknown."""
    recorded_only = ("name", "revoked_reason", "rotated_from")
    represented = (
        "id", "name", "consumer", "scopes", "expires_at", "allowed_ips", "allowed_origins", "limits", "metadata",
        "created_at", "last_used_at", "revoked_at", "revoked_reason", "rotated_from",
    )  # fmt: skip
    """All but the digest."""

    objects = KeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name or 'key'} {self.id}"


class JwtIssuerQuerySet(models.QuerySet["JwtIssuer"]):
    """Queries of issuers."""

    def documented(self) -> Self:
        """Select all that documents need."""
        return self


class JwtIssuer(Configured):
    """A trusted issuer of JWTs: where its public keys are, and which claim names the consumer."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    issuer = models.CharField(max_length=500, unique=True)
    jwks_url = models.CharField(max_length=1000)
    audience = models.CharField(max_length=500)
    algorithms = OrderedJSONField(default=list)
    consumer_claim = models.CharField(max_length=100, default="sub")

    published = represented = ("name", "issuer", "jwks_url", "audience", "algorithms", "consumer_claim")

    objects = JwtIssuerQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        verbose_name = "JWT issuer"

    def __str__(self) -> str:
        return self.name
