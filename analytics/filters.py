"""What the ledger and usage can be filtered by, in the management API and on the dashboards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django_filters import rest_framework as filters

from analytics.models import ConnectionRecord, LimitMinute, UsageMinute


class ConnectionFilters(filters.FilterSet):  # type: ignore[misc]
    """What connections can be filtered by."""

    state = filters.ChoiceFilter(choices=(("open", "open"), ("closed", "closed")), method="with_state")

    class Meta:
        model = ConnectionRecord
        fields = ("consumer", "key", "tier", "protocol", "route", "channel", "error_class")

    def with_state(self, rows: Any, name: str, value: str) -> Any:
        """Give those that are open, or those that have closed."""
        return rows.filter(closed_at__isnull=value == "open")


class UsageFilters(filters.FilterSet):  # type: ignore[misc]
    """What usage can be filtered by."""

    group = filters.ChoiceFilter(choices=(("minute", "minute"), ("hour", "hour")), method="grouped")

    class Meta:
        model = UsageMinute
        fields = ("consumer", "protocol", "target", "tier", "outcome", "error_class")

    def grouped(self, rows: Any, name: str, value: str) -> Any:
        """Leave grouping to the list: it comes after all filters."""
        return rows


class LimitFilters(filters.FilterSet):  # type: ignore[misc]
    """What the page of limits can be filtered by."""

    class Meta:
        model = LimitMinute
        fields = ("consumer", "name", "route")


UsageFilters.base_filters["from"] = filters.IsoDateTimeFilter(field_name="minute", lookup_expr="gte")
UsageFilters.base_filters["to"] = filters.IsoDateTimeFilter(field_name="minute", lookup_expr="lt")


def faults(filterset: filters.FilterSet, query: Mapping[str, str], also: Collection[str]) -> list[str]:
    """Say what is wrong with the filters that an address names; parameters in ``also`` are none."""
    known = set(filterset.base_filters) | set(also)
    unknown = [f"Unknown filter: {name}." for name in query if name not in known]
    if filterset.is_valid():
        return unknown
    return unknown + [f"{name}: {' '.join(said)}" for name, said in filterset.errors.items()]
