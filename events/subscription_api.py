"""Subscriptions in the management API."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError as Invalid
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from consumers.models import Consumer
from events import subscription_status, subscriptions
from events.models import Subscription, SubscriptionOrder, SubscriptionState, SubscriptionType
from operators.objects import Collection, Fields


@extend_schema_field(
    {
        "type": "array",
        "minItems": 1,
        "maxItems": subscriptions.SCHEDULE_MAX,
        "items": {"type": "number", "minimum": 0, "maximum": subscriptions.PAUSE_MAX_S},
    }
)
class Pauses(serializers.JSONField):
    """Delays before each attempt, in seconds; the service validates them."""


@extend_schema_field(
    {
        "type": "object",
        "nullable": True,
        "properties": {
            "events": {"type": "integer", "nullable": True},
            "seconds": {"type": "number", "nullable": True},
        },
    }
)
class Lag(serializers.JSONField):
    """Lag: the number of events not acknowledged, and the age of the oldest."""


@extend_schema_field(
    {"type": "object", "nullable": True, "properties": {"at": {"type": "string"}, "detail": {"type": "string"}}}
)
class Fault(serializers.JSONField):
    """The error of the last failed attempt."""


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": subscriptions.IN_FLIGHT_MAX})
class InFlight(serializers.IntegerField):
    """How many events may be in flight; the service validates it, as the fields below."""


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": subscriptions.ATTEMPTS_MAX})
class Attempts(serializers.IntegerField):
    """How often an event is tried."""


@extend_schema_field({"type": "number", "minimum": 1, "maximum": subscriptions.ACK_WAIT_MAX_S})
class AckWait(serializers.FloatField):
    """How long an event may stay unacknowledged, in seconds."""


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": subscriptions.LAG_MAX, "nullable": True})
class LagEvents(serializers.IntegerField):
    """A lag to be notified of, in events."""


@extend_schema_field({"type": "number", "minimum": 1, "maximum": subscriptions.PAUSE_MAX_S, "nullable": True})
class LagSeconds(serializers.FloatField):
    """A lag to be notified of, in seconds."""


class SubscriptionFields(Fields):
    """The fields of a durable subscription."""

    id = serializers.CharField(read_only=True)
    consumer = serializers.CharField(trim_whitespace=False)
    key = serializers.CharField(
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="The key whose rights apply to its deliveries; if empty, the operator's.",
    )
    type = serializers.ChoiceField(SubscriptionType.choices)
    channel = serializers.CharField(trim_whitespace=False)
    url = serializers.CharField(required=False, allow_null=True, trim_whitespace=False)
    order = serializers.ChoiceField(SubscriptionOrder.choices, required=False)
    max_in_flight = InFlight(required=False)
    max_attempts = Attempts(required=False)
    retry_schedule_s = Pauses(required=False)
    ack_wait_s = AckWait(required=False)
    state = serializers.ChoiceField(SubscriptionState.choices, required=False)
    state_reason = serializers.CharField(read_only=True, allow_null=True)
    alert_url = serializers.CharField(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)
    alert_lag_events = LagEvents(required=False, allow_null=True)
    alert_lag_s = LagSeconds(required=False, allow_null=True)
    created_at = serializers.DateTimeField(read_only=True)
    previous_secret_until = serializers.DateTimeField(read_only=True, allow_null=True)
    lag = Lag(read_only=True)
    in_flight = serializers.IntegerField(read_only=True, allow_null=True)
    redelivered = serializers.IntegerField(read_only=True, allow_null=True)
    last_delivered_id = serializers.CharField(read_only=True, allow_null=True)
    last_acked_id = serializers.CharField(read_only=True, allow_null=True)
    last_error = Fault(read_only=True)


class NewSubscriptionFields(SubscriptionFields):
    """A subscription to create, with its start position."""

    begins = serializers.CharField(required=False, trim_whitespace=False)

    def get_fields(self) -> dict[str, Any]:
        """Name the field `from`, which is a keyword in Python."""
        found = super().get_fields()
        found["from"] = found.pop("begins")
        return found


class ShownSubscriptionFields(SubscriptionFields):
    """A subscription with its secret, which is returned once."""

    secret = serializers.CharField(required=False, help_text="`whsec_…`, of a webhook. It cannot be read again.")


class SecretRotationFields(Fields):
    """How a secret is rotated."""

    overlap_s = serializers.IntegerField(
        required=False, min_value=0, max_value=subscriptions.OVERLAP_MAX_S, help_text="The default is 86400."
    )


@extend_schema_field({"type": "object", "nullable": True, "additionalProperties": {}})
class Spoken(serializers.JSONField):
    """A request that was sent, or its response."""


class AttemptFields(Fields):
    """An attempt and its result."""

    event = serializers.CharField(read_only=True)
    channel = serializers.CharField(read_only=True)
    attempt = serializers.IntegerField(read_only=True)
    outcome = serializers.CharField(read_only=True)
    at = serializers.DateTimeField(read_only=True)
    duration_s = serializers.FloatField(read_only=True)
    request = Spoken(read_only=True)
    answer = Spoken(read_only=True)
    error = serializers.CharField(read_only=True, allow_null=True)


class AttemptList(Fields):
    """A list of attempts."""

    results = AttemptFields(many=True, read_only=True)
    next = serializers.CharField(read_only=True, allow_null=True)


class SubscriptionFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of subscriptions."""

    consumer = filters.CharFilter(field_name="consumer__name")

    class Meta:
        model = Subscription
        fields = ("consumer", "channel", "type", "state")


class Subscriptions(Collection):
    """Durable subscriptions to channels: webhook and pull."""

    queryset = Subscription.objects.documented()
    serializer_class = SubscriptionFields
    filterset_class = SubscriptionFilters
    ordering = ("-created_at", "id")
    lookup_value_regex = "[A-Za-z0-9_]+"

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the subscriptions, a page at a time."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        known = subscription_status.healths() if page else {}
        fields = [subscription_status.shown(row, known.get(row.id, {})) for row in page or ()]
        return self.get_paginated_response(self.get_serializer(fields, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one subscription."""
        return Response(self._shown(self.get_object()))

    @extend_schema(request=NewSubscriptionFields, responses={201: ShownSubscriptionFields})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create a subscription for a consumer. Only this response has `secret`, for a webhook."""
        fields = self.read_body(NewSubscriptionFields)
        name, start = fields.pop("consumer"), fields.pop("from", None)
        if "state" in fields:
            raise Invalid({"state": "Cannot be set: a new subscription is active."})
        consumer = Consumer.objects.filter(name=name).first()
        if consumer is None:
            raise Invalid({"consumer": "There is no such consumer."})
        position = subscription_status.position(subscriptions.channel_named(fields["channel"]), start)
        made = subscriptions.create_subscription(consumer=consumer, position=position, **fields, by=self.operator)
        return self._shown_once(*made)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the fields that the body names; `state` is `paused` or `active`."""
        changes = self.read_body(SubscriptionFields, partial=True)
        row = subscriptions.update_subscription(self.get_object(), **changes, by=self.operator)
        return Response(self._shown(row))

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a subscription and its position."""
        subscriptions.delete_subscription(self.get_object(), by=self.operator)
        return Response(status=204)

    @extend_schema(request=SecretRotationFields, responses={201: ShownSubscriptionFields})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create a new secret; until the overlap ends, both sign messages. Only this response has `secret`."""
        made = subscriptions.rotate_secret(self.get_object(), **self.read_body(SecretRotationFields), by=self.operator)
        return self._shown_once(*made)

    @extend_schema(responses=AttemptList)
    @action(detail=True, methods=["get"], pagination_class=None, filterset_class=None)
    def attempts(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List its attempts: the last 500 of at most 7 days, newest first."""
        return Response({"results": subscription_status.attempts(self.get_object().id), "next": None})

    def _shown(self, row: Subscription) -> dict[str, Any]:
        fields: dict[str, Any] = SubscriptionFields(
            subscription_status.shown(row, subscription_status.health_now(row))
        ).data
        return fields

    def _shown_once(self, row: Subscription, secret: str | None) -> Response:
        fields = subscription_status.shown(row, {}) | ({} if secret is None else {"secret": secret})
        location = self.request.build_absolute_uri(self.reverse_action("detail", [row.id]))
        headers = {"Location": location, "Cache-Control": "no-store"}
        return Response(ShownSubscriptionFields(fields).data, 201, headers=headers)


def register(router: BaseRouter) -> None:
    """Register the collection."""
    router.register("subscriptions", Subscriptions, basename="subscription")
