"""Tiers and consumers in the management API."""

from __future__ import annotations

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.routers import BaseRouter

from consumers import services
from consumers.limits import AMOUNT_MAX, CLOSE_AT_MAX, EXCEEDS, FAILS, LEAST, MODES, PER_MAX_S, SCOPES
from consumers.models import NAME_PATTERN, Consumer, Tier
from consumers.scopes import SCOPES_MAX
from gateway.snapshot.documents import Metric
from gateway.snapshot.scopes import SCOPE
from operators.objects import Fields, Objects


@extend_schema_field({"type": "string", "pattern": NAME_PATTERN + "$"})
class Name(serializers.CharField):
    """The name of an object in the URL, which its model validates."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)


@extend_schema_field(
    {
        "description": "Seconds, or `month`; null or absent for what counts while it is open.",
        "nullable": True,
        "oneOf": [
            {"type": "number", "minimum": LEAST, "maximum": PER_MAX_S},
            {"type": "string", "enum": ["month"]},
        ],
    }
)
class Period(serializers.JSONField):
    """The period of a limit; the service validates it."""


class LimitFields(serializers.Serializer[Any]):
    """One limit, for the schema; docs/limits.md describes the fields."""

    metric = serializers.ChoiceField([metric.value for metric in Metric])
    amount = serializers.FloatField(min_value=LEAST, max_value=AMOUNT_MAX)
    per = Period(required=False)
    burst = serializers.FloatField(required=False, allow_null=True, min_value=LEAST, max_value=AMOUNT_MAX)
    scope = serializers.ChoiceField(SCOPES, required=False, allow_null=True)
    exceed = serializers.ChoiceField(EXCEEDS, required=False, allow_null=True)
    mode = serializers.ChoiceField(MODES, required=False, allow_null=True)
    close_at = serializers.FloatField(required=False, allow_null=True, min_value=0, max_value=CLOSE_AT_MAX)
    fail = serializers.ChoiceField(FAILS, required=False, allow_null=True)  # type: ignore[assignment]


@extend_schema_field(LimitFields(many=True))
class Limits(serializers.JSONField):
    """A list of limits; the service validates it."""


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class Strings(serializers.JSONField):
    """A list of strings; the service validates it."""


@extend_schema_field(
    {
        "type": "array",
        "items": {
            "type": "string",
            "pattern": f"^({SCOPE.pattern})$",
        },
        "maxItems": SCOPES_MAX,
    }
)
class Scopes(serializers.JSONField):
    """Scopes; the service validates them."""


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Metadata(serializers.JSONField):
    """An object with free members; the service validates it."""


class TierFields(Fields):
    """A tier."""

    name = Name()
    description = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    limits = Limits(required=False)
    scopes = Scopes(required=False, help_text="Bound the scopes of its consumers' keys.")


class ConsumerFields(Fields):
    """A consumer. Its `limits` replace those of its tier with the same metric and per."""

    name = Name()
    display_name = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    email = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    tier: Any = serializers.SlugRelatedField(slug_field="name", queryset=Tier.objects.all())
    limits = Limits(required=False)
    metadata = Metadata(required=False)
    is_active = serializers.BooleanField(required=False)


class ConsumerFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of consumers."""

    tier = filters.CharFilter(field_name="tier__name")
    is_active = filters.BooleanFilter()

    class Meta:
        model = Consumer
        fields = ("tier", "is_active")


class TierObjects(Objects):
    """Named sets of limits and scopes."""

    queryset = Tier.objects.documented()
    serializer_class = TierFields
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    create_row = staticmethod(services.create_tier)
    update_row = staticmethod(services.update_tier)
    delete_row = staticmethod(services.delete_tier)


class ConsumerObjects(Objects):
    """API consumers."""

    queryset = Consumer.objects.documented()
    serializer_class = ConsumerFields
    filterset_class = ConsumerFilters
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    create_row = staticmethod(services.create_consumer)
    update_row = staticmethod(services.update_consumer)
    delete_row = staticmethod(services.delete_consumer)


def register(router: BaseRouter) -> None:
    """Add this app's collections."""
    router.register("tiers", TierObjects, basename="tier")
    router.register("consumers", ConsumerObjects, basename="consumer")
