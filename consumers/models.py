"""Tier and Consumer."""

from __future__ import annotations

from typing import Self

from django.core.validators import RegexValidator
from django.db import models

from audit.configured import Configured
from audit.ordered_json import OrderedJSONField
from consumers.scopes import every_scope

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Without its end: `$` in JSON Schema, while Python's would match before a line feed."""
name_validator = RegexValidator(
    NAME_PATTERN + r"\Z",
    "Use letters, digits, dots, dashes and underscores; begin with a letter or digit.",
)


class TierQuerySet(models.QuerySet["Tier"]):
    """Queries of tiers."""

    def documented(self) -> Self:
        """Select all that documents need."""
        return self

    def with_counts(self) -> Self:
        """Annotate each tier with ``consumer_count``."""
        return self.annotate(consumer_count=models.Count("consumers"))


class Tier(Configured):
    """A named set of limits (docs/limits.md), and of scopes that bound those of its consumers' keys."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    description = models.CharField(max_length=300, blank=True)
    limits = OrderedJSONField(default=list, blank=True)
    scopes = OrderedJSONField(default=every_scope, blank=True)

    published = ("name", "limits", "scopes")
    recorded_only = ("description",)
    represented = ("name", "description", "limits", "scopes")

    objects = TierQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class ConsumerQuerySet(models.QuerySet["Consumer"]):
    """Queries of consumers."""

    def with_tier(self) -> Self:
        """Select the tier with each consumer."""
        return self.select_related("tier")

    def documented(self) -> Self:
        """Select all that documents need."""
        return self.with_tier()


class Consumer(Configured):
    """An API consumer: the owner of keys, which are counted together."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    display_name = models.CharField(max_length=200, blank=True)
    email = models.EmailField(blank=True)
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="consumers")
    limits = OrderedJSONField(default=list, blank=True)
    metadata = OrderedJSONField(default=dict, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    published = ("name", "tier", "limits", "metadata", "is_active")
    recorded_only = ("display_name", "email")
    represented = ("name", "display_name", "email", "tier", "limits", "metadata", "is_active")

    objects = ConsumerQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
