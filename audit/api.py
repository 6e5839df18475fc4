"""The audit log in the management API: every change, and the configuration as of an instant."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db.models import Max, QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from audit.diff import Diff
from audit.models import Action, Change
from audit.services import NotAvailable, diff_between, instant_of, require_available, without_hidden
from operators.instants import InstantFilter
from operators.objects import Collection, Fields


@extend_schema_field({"type": "object", "nullable": True, "additionalProperties": {}})
class Recorded(serializers.JSONField):
    """An object as it was recorded."""


class ChangeFields(Fields):
    """One change."""

    id = serializers.IntegerField(read_only=True)
    at = serializers.DateTimeField(read_only=True)
    actor = serializers.CharField(read_only=True)
    kind = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)
    action = serializers.ChoiceField(Action.choices, read_only=True)
    before = Recorded(read_only=True)
    after = Recorded(read_only=True)
    note = serializers.CharField(read_only=True)

    def to_representation(self, instance: Change) -> dict[str, Any]:
        """Return a change without the fields that nobody may read."""
        return {
            "id": instance.pk,
            "at": instance.at.isoformat().replace("+00:00", "Z"),
            "actor": instance.actor,
            "kind": instance.kind,
            "name": instance.name,
            "action": instance.action,
            "before": without_hidden(instance.before),
            "after": without_hidden(instance.after),
            "note": instance.note,
        }


class DifferenceFields(Fields):
    """The change of one object between two instants."""

    kind = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)
    action = serializers.ChoiceField(Action.choices, read_only=True)
    before = Recorded(read_only=True)
    after = Recorded(read_only=True)


class DifferencesFields(Fields):
    """The changes between two instants, or by a rollback."""

    changes = DifferenceFields(many=True, read_only=True)


class ChangeFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of changes."""

    as_of = InstantFilter(
        method="in_force_at",
        label="The configuration at this instant: the last change of each object that existed then.",
    )

    class Meta:
        model = Change
        fields = ("kind", "name", "actor", "action")

    def in_force_at(self, changes: QuerySet[Change], name: str, instant: datetime) -> QuerySet[Change]:
        """Return the last change of each object until the instant, without deleted objects. Raises ValidationError."""
        _require_available("as_of", instant)
        last = (
            Change.objects.filter(at__lte=instant)
            .order_by()
            .values("kind", "name")
            .annotate(last=Max("id"))
            .values("last")
        )
        return changes.filter(id__in=last, after__isnull=False)


class Changes(Collection):
    """Every change of the configuration, newest first. With `as_of`, the configuration at that instant: see `after`."""

    queryset = Change.objects.all()
    serializer_class = ChangeFields
    filterset_class = ChangeFilters
    ordering = ("-id",)
    lookup_value_regex = "[0-9]{1,18}"
    rights: ClassVar[dict[str, str]] = {"diff": "audit.view_change"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"diff": ("since", "until")}

    @extend_schema(
        parameters=[
            OpenApiParameter("since", OpenApiTypes.DATETIME, required=True),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Defaults to now."),
        ],
        responses=DifferencesFields,
    )
    @action(detail=False, methods=["get"], filterset_class=None, pagination_class=None)
    def diff(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return how each object differs between two instants."""
        query = request.query_params
        since = _instant("since", query.get("since", ""))
        until = _instant("until", query["until"]) if "until" in query else timezone.now()
        _require_available("since", since)
        _require_available("until", until)
        return Response({"changes": render_diff(diff_between(since, until))})


def render_diff(diff: Diff) -> list[dict[str, Any]]:
    """Return the differences as JSON data."""
    return [
        {"kind": entry.kind, "name": entry.name, "action": entry.action, "before": entry.before, "after": entry.after}
        for entry in diff.entries
    ]


def _instant(name: str, text: str) -> datetime:
    try:
        return instant_of(text)
    except ValueError as error:
        raise ValidationError({name: str(error)}) from None


def _require_available(name: str, instant: datetime) -> None:
    try:
        require_available(instant)
    except NotAvailable as error:
        raise ValidationError({name: str(error)}) from None


def register(router: BaseRouter) -> None:
    """Add this app's collection."""
    router.register("audit", Changes, basename="change")
