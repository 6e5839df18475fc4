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
from events import standing, subscriptions
from events.models import Subscription, SubscriptionOrder, SubscriptionState, SubscriptionType
from operators.objects import Collection, Fields


@extend_schema_field({"type": "array", "items": {"type": "number"}})
class Pauses(serializers.JSONField):
    """Seconds before each try; the service reads them."""


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
    """How far behind it is: events not settled, and the age of the oldest."""


@extend_schema_field(
    {"type": "object", "nullable": True, "properties": {"at": {"type": "string"}, "detail": {"type": "string"}}}
)
class Fault(serializers.JSONField):
    """What the last try that failed has said."""


class SubscriptionFields(Fields):
    """A durable reader of a channel."""

    id = serializers.CharField(read_only=True)
    consumer = serializers.CharField(trim_whitespace=False)
    key = serializers.CharField(
        required=False, allow_blank=True, trim_whitespace=False, help_text="By whose rights it delivers; empty: yours."
    )
    type = serializers.ChoiceField(SubscriptionType.choices)
    channel = serializers.CharField(trim_whitespace=False)
    url = serializers.CharField(required=False, allow_null=True, trim_whitespace=False)
    order = serializers.ChoiceField(SubscriptionOrder.choices, required=False)
    max_in_flight = serializers.IntegerField(required=False)
    max_attempts = serializers.IntegerField(required=False)
    retry_schedule_s = Pauses(required=False)
    ack_wait_s = serializers.FloatField(required=False)
    state = serializers.ChoiceField(SubscriptionState.choices, required=False)
    state_reason = serializers.CharField(read_only=True, allow_null=True)
    alert_url = serializers.CharField(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)
    alert_lag_events = serializers.IntegerField(required=False, allow_null=True)
    alert_lag_s = serializers.FloatField(required=False, allow_null=True)
    created_at = serializers.DateTimeField(read_only=True)
    previous_secret_until = serializers.DateTimeField(read_only=True, allow_null=True)
    lag = Lag(read_only=True)
    in_flight = serializers.IntegerField(read_only=True, allow_null=True)
    redelivered = serializers.IntegerField(read_only=True, allow_null=True)
    last_delivered_id = serializers.CharField(read_only=True, allow_null=True)
    last_acked_id = serializers.CharField(read_only=True, allow_null=True)
    last_error = Fault(read_only=True)


class NewSubscriptionFields(SubscriptionFields):
    """A subscription to be made: with where it begins."""

    begins = serializers.CharField(required=False, trim_whitespace=False)

    def get_fields(self) -> dict[str, Any]:
        """Call it `from`, which is no name in Python."""
        found = super().get_fields()
        found["from"] = found.pop("begins")
        return found


class ShownSubscriptionFields(SubscriptionFields):
    """A subscription as it is shown once: with its secret."""

    secret = serializers.CharField(read_only=True, help_text="`whsec_…`. It cannot be read again.")


class SecretRotationFields(Fields):
    """How a secret is rotated."""

    overlap_s = serializers.IntegerField(
        required=False, min_value=0, max_value=subscriptions.OVERLAP_MAX_S, help_text="86400 unless said."
    )


@extend_schema_field({"type": "object", "nullable": True, "additionalProperties": {}})
class Spoken(serializers.JSONField):
    """What was sent, or answered."""


class AttemptFields(Fields):
    """What became of one try."""

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
    """A list of tries."""

    results = AttemptFields(many=True, read_only=True)
    next = serializers.CharField(read_only=True, allow_null=True)


class SubscriptionFilters(filters.FilterSet):  # type: ignore[misc]
    """What subscriptions can be filtered by."""

    consumer = filters.CharFilter(field_name="consumer__name")

    class Meta:
        model = Subscription
        fields = ("consumer", "channel", "type", "state")


class Subscriptions(Collection):
    """Durable readers of channels: webhooks, and events to be pulled."""

    queryset = Subscription.objects.documented()
    serializer_class = SubscriptionFields
    filterset_class = SubscriptionFilters
    ordering = ("-created_at", "id")
    lookup_value_regex = "[A-Za-z0-9_]+"

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the subscriptions, a page at a time."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        known = standing.healths() if page else {}
        said = [standing.shown(row, known.get(row.id, {})) for row in page or ()]
        return self.get_paginated_response(self.get_serializer(said, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Give one subscription."""
        return Response(self._shown(self.get_object()))

    @extend_schema(request=NewSubscriptionFields, responses={201: ShownSubscriptionFields})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a subscription for a consumer. The answer alone has `secret`, where it is a webhook."""
        fields = self.read_body(NewSubscriptionFields)
        name, begins = fields.pop("consumer"), fields.pop("from", None)
        if "state" in fields:
            raise Invalid({"state": "It begins active."})
        consumer = Consumer.objects.filter(name=name).first()
        if consumer is None:
            raise Invalid({"consumer": "There is no such consumer."})
        position = standing.position(subscriptions.channel_named(fields["channel"]), begins)
        made = subscriptions.create_subscription(consumer=consumer, position=position, **fields, by=self.operator)
        return self._shown_once(*made)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the fields that the body names; `state` is `paused` or `active`."""
        changes = self.read_body(SubscriptionFields, partial=True)
        row = subscriptions.update_subscription(self.get_object(), **changes, by=self.operator)
        return Response(self._shown(row))

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a subscription, and with it how far it has come."""
        subscriptions.delete_subscription(self.get_object(), by=self.operator)
        return Response(status=204)

    @extend_schema(request=SecretRotationFields, responses={201: ShownSubscriptionFields})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a new secret; messages are signed with both until the overlap ends. The answer alone has `secret`."""
        made = subscriptions.rotate_secret(self.get_object(), **self.read_body(SecretRotationFields), by=self.operator)
        return self._shown_once(*made)

    @extend_schema(responses=AttemptList)
    @action(detail=True, methods=["get"], pagination_class=None, filterset_class=None)
    def attempts(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what became of its tries: the last 500 of at most 7 days, the newest first."""
        return Response({"results": standing.attempts(self.get_object().id), "next": None})

    def _shown(self, row: Subscription) -> dict[str, Any]:
        said: dict[str, Any] = SubscriptionFields(standing.shown(row, standing.health_now(row))).data
        return said

    def _shown_once(self, row: Subscription, secret: str | None) -> Response:
        said = standing.shown(row, {}) | ({} if secret is None else {"secret": secret})
        location = self.request.build_absolute_uri(self.reverse_action("detail", [row.id]))
        headers = {"Location": location, "Cache-Control": "no-store"}
        return Response(ShownSubscriptionFields(said).data, 201, headers=headers)


def register(router: BaseRouter) -> None:
    """Add this collection."""
    router.register("subscriptions", Subscriptions, basename="subscription")
