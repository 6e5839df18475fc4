"""The audit log in the management API: every change, and the configuration as of an instant."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Max, QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.routers import BaseRouter

from audit.models import Action, Change
from operators.objects import Collection, Fields

HIDDEN = frozenset({"digest"})
"""What a change keeps of a key but nobody is shown."""


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
        """Say a change, without what must not be read."""
        return {
            "id": instance.pk,
            "at": instance.at.isoformat().replace("+00:00", "Z"),
            "actor": instance.actor,
            "kind": instance.kind,
            "name": instance.name,
            "action": instance.action,
            "before": shown(instance.before),
            "after": shown(instance.after),
            "note": instance.note,
        }


class ChangeFilters(filters.FilterSet):  # type: ignore[misc]
    """What changes can be filtered by."""

    as_of = filters.IsoDateTimeFilter(
        method="standing_at",
        label="The configuration as it stood at this instant: the last change of each object that was there.",
    )

    class Meta:
        model = Change
        fields = ("kind", "name", "actor", "action")

    def standing_at(self, changes: QuerySet[Change], name: str, instant: datetime) -> QuerySet[Change]:
        """Give the last change of each object until the instant, where it left something."""
        last = (
            Change.objects.filter(at__lte=instant)
            .order_by()
            .values("kind", "name")
            .annotate(last=Max("id"))
            .values("last")
        )
        return changes.filter(id__in=last).exclude(action=Action.DELETED)


class Changes(Collection):
    """Every change of the configuration, newest first. With `as_of`, the configuration at an instant: see `after`."""

    queryset = Change.objects.all()
    serializer_class = ChangeFields
    filterset_class = ChangeFilters
    ordering = ("-id",)
    lookup_value_regex = "[0-9]{1,18}"


def shown(recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """Give what was recorded without digests."""
    return None if recorded is None else {name: value for name, value in recorded.items() if name not in HIDDEN}


def register(router: BaseRouter) -> None:
    """Add this app's collection."""
    router.register("audit", Changes, basename="change")
