"""Filters of lists and of bulk actions. What is unknown, empty, repeated or malformed is refused by its name.

An empty value is usually the unset variable of a script: taken as no filter, it would select every row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict
from django_filters.rest_framework import BooleanFilter, DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from operators.paging import PAGE_PARAMETERS

EVERY = "all"
"""The parameter that makes a bulk action select every row."""


class StrictFilters(DjangoFilterBackend):  # type: ignore[misc]
    """Refuses query parameters that are not filters of the list, and invalid values.

    A bulk action (an action of the view's ``bulk_actions``) needs a filter or ``all=true``.
    """

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        """Return the rows that match the filters. Raises ValidationError."""
        filterset_class = self.get_filterset_class(view, queryset)
        filters: Mapping[str, Any] = filterset_class.base_filters if filterset_class else {}
        is_bulk = view.action in getattr(view, "bulk_actions", ())
        require_known(request, [*filters, *((EVERY,) if is_bulk else PAGE_PARAMETERS)])
        require_single_values(request)
        _require_flags(request, [name for name, one in filters.items() if isinstance(one, BooleanFilter)])
        if is_bulk:
            _require_selection(request)
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered


def require_known(request: Request, names: Collection[str]) -> None:
    """Raise ValidationError for parameters that have none of these names."""
    unknown = [name for name in request.query_params if name not in names]
    if unknown:
        known_names = f"the parameters are {', '.join(names)}" if names else "there are none"
        raise ValidationError(dict.fromkeys(unknown, f"Unknown parameter; {known_names}."))


def require_single_values(request: Request) -> None:
    """Raise ValidationError for parameters that are empty or repeated."""
    if errors := value_errors(request.query_params):
        raise ValidationError(errors)


def value_errors(query: QueryDict) -> dict[str, str]:
    """Return an error for each parameter that is empty or repeated, by its name."""
    errors = {}
    for name, values in query.lists():
        if len(values) > 1:
            errors[name] = "Must be given once."
        elif not values[0].strip():
            errors[name] = "Must not be empty; leave the parameter out."
    return errors


def _require_flags(request: Request, names: Collection[str]) -> None:
    for name in names:
        if request.query_params.get(name, "true") not in ("true", "false"):
            raise ValidationError({name: "Must be `true` or `false`."})


def _require_selection(request: Request) -> None:
    """Raise ValidationError unless there are filters, or ``all=true`` without any."""
    every = request.query_params.get(EVERY)
    if every not in (None, "true"):
        raise ValidationError({EVERY: "Must be `true`."})
    if every is None and not request.query_params:
        raise ValidationError({EVERY: "Name the rows by a filter, or send `all=true` for every row."})
    if every is not None and len(request.query_params) > 1:
        raise ValidationError({EVERY: "Cannot be combined with filters."})
