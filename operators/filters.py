"""Filters of lists, which refuse unknown query parameters."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from operators.paging import PAGE_PARAMETERS


class StrictFilters(DjangoFilterBackend):  # type: ignore[misc]
    """Refuses query parameters that are not filters of the list, and invalid values."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        """Return the rows that match the filters. Raises ValidationError."""
        filterset_class = self.get_filterset_class(view, queryset)
        names = [*(filterset_class.base_filters if filterset_class else ()), *PAGE_PARAMETERS]
        unknown = {
            name: f"Unknown filter; the filters are {', '.join(names)}."
            for name in request.query_params
            if name not in names
        }
        if unknown:
            raise ValidationError(unknown)
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered
