"""Filters by an instant that refuse what no calendar holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django_filters import rest_framework as filters
from django_filters.fields import IsoDateTimeField


class InstantField(IsoDateTimeField):  # type: ignore[misc]
    """An instant that is in the calendar in UTC, too."""

    def clean(self, value: Any) -> datetime | None:
        """Return the instant in UTC. Raises ValidationError."""
        instant: datetime | None = super().clean(value)
        try:
            return instant.astimezone(UTC) if instant is not None else None
        except OverflowError:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class InstantFilter(filters.IsoDateTimeFilter):  # type: ignore[misc]
    """A filter by an instant."""

    field_class = InstantField
