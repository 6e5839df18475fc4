"""Filters of the ledger and of usage, for the management API and the dashboards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django_filters import rest_framework as filters

from analytics.models import ConnectionRecord, LimitMinute, UsageMinute


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


UsageFilters.base_filters["from"] = filters.IsoDateTimeFilter(field_name="minute", lookup_expr="gte")
UsageFilters.base_filters["to"] = filters.IsoDateTimeFilter(field_name="minute", lookup_expr="lt")


def faults(filterset: filters.FilterSet, query: Mapping[str, str], also: Collection[str]) -> list[str]:
    """Return the errors in the filters of a query string; parameters in ``also`` are not filters."""
    known = set(filterset.base_filters) | set(also)
    unknown = [f"Unknown filter: {name}." for name in query if name not in known]
    if filterset.is_valid():
        return unknown
    return unknown + [f"{name}: {' '.join(texts)}" for name, texts in filterset.errors.items()]
