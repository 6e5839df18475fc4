"""The connection ledger and usage in the management API."""

from __future__ import annotations

from typing import Any

from django.db.models import Max, Sum
from django.db.models.functions import TruncDay, TruncHour
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from analytics.filters import ConnectionFilters, UsageFilters
from analytics.models import ConnectionRecord, UsageMinute
from analytics.reports import COUNTED
from analytics.services import disconnect
from operators.objects import Collection, Fields

LEDGER = (
    "id", "consumer", "key", "tier", "protocol", "route", "channel", "ip", "opened_at", "closed_at", "closed_by",
    "close_code", "error_class", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled",
    "subscriptions",
)  # fmt: skip
USAGE = ("minute", "protocol", "consumer", "tier", "target", "outcome", "error_class")


GROUPS = {"hour": (TruncHour, 3600), "day": (TruncDay, 86_400)}
"""Of each group, the function of its begin and its seconds."""


class ConnectionFields(serializers.ModelSerializer[ConnectionRecord]):
    """The fields of a connection in the ledger."""

    class Meta:
        model = ConnectionRecord
        fields = LEDGER
        read_only_fields = LEDGER


class Connections(Collection):
    """Connections, open and closed."""

    queryset = ConnectionRecord.objects.all()
    serializer_class = ConnectionFields
    filterset_class = ConnectionFilters
    ordering = ("-opened_at", "id")
    lookup_value_regex = "[0-9a-f]{1,32}"

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Close an open connection, whichever process holds it."""
        row = self.get_object()
        if row.closed_at is None:
            disconnect(row, by=self.operator)
        return Response(status=204)


class UsageFields(Fields):
    """The fields of usage: sums for one combination of labels in one minute, hour or day."""

    minute = serializers.DateTimeField(read_only=True, help_text="The begin of the minute, hour or day, in UTC.")
    span_s = serializers.IntegerField(
        read_only=True, help_text="The seconds that are summed: old usage is kept by the hour, and then by the day."
    )
    protocol = serializers.CharField(read_only=True)
    consumer = serializers.CharField(read_only=True)
    tier = serializers.CharField(read_only=True)
    target = serializers.CharField(read_only=True)
    outcome = serializers.CharField(read_only=True)
    error_class = serializers.CharField(read_only=True)
    calls = serializers.IntegerField(read_only=True)
    messages_in = serializers.IntegerField(read_only=True)
    messages_out = serializers.IntegerField(read_only=True)
    bytes_in = serializers.IntegerField(read_only=True)
    bytes_out = serializers.IntegerField(read_only=True)
    throttled = serializers.IntegerField(read_only=True)


class Usage(Collection):
    """Calls, messages and bytes by minute, hour or day, newest first."""

    queryset = UsageMinute.objects.all()
    serializer_class = UsageFields
    filterset_class = UsageFilters
    ordering = ("-minute", "protocol", "consumer", "target", "outcome")
    http_method_names = ("get", "head", "options")

    def filter_queryset(self, queryset: Any) -> Any:
        """Filter, then sum over keys, and over the minutes of each hour or day if grouped by it."""
        rows = super().filter_queryset(queryset)
        labels = list(USAGE)
        if (group := self._group()) in GROUPS:
            rows = rows.annotate(**{group: GROUPS[group][0]("minute")})
            labels[0] = group
            # Pagination uses this ordering; ordering by minute would add the minute to the GROUP BY.
            self.ordering = (f"-{group}", *self.ordering[1:])
        return (
            rows.values(*labels)
            .annotate(**{f"sum_{name}": Sum(name) for name in COUNTED}, longest_s=Max("span_s"))
            .order_by(f"-{labels[0]}", *self.ordering[1:])
        )

    def _group(self) -> str:
        return str(self.request.query_params.get("group", "minute"))

    @extend_schema(responses={200: UsageFields(many=True)})
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List usage, a page at a time."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        group = self._group()
        least_s = GROUPS[group][1] if group in GROUPS else 0
        records = [
            {"minute": row[group], "span_s": max(least_s, row["longest_s"])}
            | {name: row[name] for name in USAGE[1:]}
            | {name: row[f"sum_{name}"] for name in COUNTED}
            for row in page
        ]
        return self.get_paginated_response(records)

    @extend_schema(exclude=True)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return 404: usage consists of sums, which have no address."""
        return Response(status=404)


def register(router: BaseRouter) -> None:
    """Register this app's collections."""
    router.register("connections", Connections, basename="connection")
    router.register("usage", Usage, basename="usage")
