"""Tier and Consumer."""

from __future__ import annotations

from typing import Any, Self

from django.core.validators import RegexValidator
from django.db import models

from consumers.scopes import every_scope

name_validator = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z",
    "Use letters, digits, dots, dashes and underscores; begin with a letter or digit.",
)


class TierQuerySet(models.QuerySet["Tier"]):
    """Reads of tiers."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self

    def with_counts(self) -> Self:
        """Count the consumers of each along."""
        return self.annotate(consumer_count=models.Count("consumers"))


class Tier(models.Model):
    """A named set of limits (docs/limits.md), and the most that its consumers' keys may do."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    description = models.CharField(max_length=300, blank=True)
    limits = models.JSONField(default=list, blank=True)
    scopes = models.JSONField(default=every_scope, blank=True)

    objects = TierQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot."""
        return {"name": self.name, "limits": self.limits, "scopes": self.scopes}

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.representation()

    def representation(self) -> dict[str, Any]:
        """Say it as the management API and YAML do."""
        return {
            "name": self.name,
            "description": self.description,
            "limits": self.limits,
            "scopes": self.scopes,
        }


class ConsumerQuerySet(models.QuerySet["Consumer"]):
    """Reads of consumers."""

    def with_tier(self) -> Self:
        """Read the tier along."""
        return self.select_related("tier")

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self.with_tier()


class Consumer(models.Model):
    """Who uses the API."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    display_name = models.CharField(max_length=200, blank=True)
    email = models.EmailField(blank=True)
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="consumers")
    limits = models.JSONField(default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ConsumerQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot."""
        return {
            "name": self.name,
            "tier": self.tier.name,
            "limits": self.limits,
            "metadata": self.metadata,
            "is_active": self.is_active,
        }

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.representation()

    def representation(self) -> dict[str, Any]:
        """Say it as the management API and YAML do."""
        return {
            "name": self.name,
            "display_name": self.display_name,
            "email": self.email,
            "tier": self.tier.name,
            "limits": self.limits,
            "metadata": self.metadata,
            "is_active": self.is_active,
        }
