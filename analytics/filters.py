"""Filters of the ledger and of usage, for the management API and the dashboards."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from django.http import QueryDict
from django_filters import rest_framework as filters

from analytics.models import ConnectionRecord, LimitMinute, UsageMinute
from operators.filters import value_errors
from operators.instants import InstantFilter

PAGE = "page"
"""The parameter that selects a page of a list."""
_PAGE_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class ConnectionFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of connections."""

    state = filters.ChoiceFilter(choices=(("open", "open"), ("closed", "closed")), method="with_state")

    class Meta:
        model = ConnectionRecord
        fields = ("consumer", "key", "tier", "protocol", "route", "channel", "error_class")

    def with_state(self, rows: Any, name: str, value: str) -> Any:
        """Return the open or the closed connections."""
        return rows.filter(closed_at__isnull=value == "open")


class UsageFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of usage."""

    group = filters.ChoiceFilter(choices=(("minute", "minute"), ("hour", "hour"), ("day", "day")), method="grouped")

    class Meta:
        model = UsageMinute
        fields = ("consumer", "protocol", "target", "tier", "outcome", "error_class")

    def grouped(self, rows: Any, name: str, value: str) -> Any:
        """Return the rows unchanged: the list groups them after all filters."""
        return rows


class LimitFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of the limits page."""

    class Meta:
        model = LimitMinute
        fields = ("consumer", "name", "route")


UsageFilters.base_filters["from"] = InstantFilter(field_name="minute", lookup_expr="gte")
UsageFilters.base_filters["to"] = InstantFilter(field_name="minute", lookup_expr="lt")


def faults(filterset: filters.FilterSet, query: QueryDict, also: Collection[str] = ()) -> list[str]:
    """Return the errors in the filters of a query string; parameters in ``also`` are not filters.

    What is unknown, empty, repeated or malformed is named, and so is a page that is no number.
    """
    known = {*filterset.base_filters, *also}
    found = [f"Unknown filter: {name}." for name in query if name not in known]
    values = value_errors(query)
    found += [f"{name}: {text}" for name, text in values.items() if name in known]
    if PAGE in also and not _PAGE_NUMBER.fullmatch(query.get(PAGE) or "1"):
        found.append(f"{PAGE}: Must be a whole number from 1.")
    if not filterset.is_valid():
        found += [f"{name}: {' '.join(texts)}" for name, texts in filterset.errors.items() if name not in values]
    return found
