"""Channels and dead letters in the management API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from events import letters, services
from events.models import Channel, DeadLetter, OnInvalid
from events.services import PROTOCOLS
from operators.objects import Collection, Fields, Objects


class RetentionFields(serializers.Serializer[Any]):
    """How long and how many events are kept, for the schema."""

    max_age_s = serializers.FloatField(required=False)
    max_bytes = serializers.FloatField(required=False)
    max_events = serializers.FloatField(required=False)


@extend_schema_field({"type": "object", "nullable": True, "additionalProperties": {}})
class JsonSchema(serializers.JSONField):
    """A JSON Schema; the service reads it."""


@extend_schema_field(RetentionFields)
class Retention(serializers.JSONField):
    """Bounds of what is kept; the service reads them."""


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": list(PROTOCOLS)}})
class Protocols(serializers.JSONField):
    """Protocols that may be used; none named is all. The service reads them."""


class ChannelFields(Fields):
    """A channel."""

    address = serializers.CharField(trim_whitespace=False)
    title = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    schema = JsonSchema(required=False, allow_null=True)
    on_invalid = serializers.ChoiceField(OnInvalid.choices, required=False)
    retention = Retention(required=False)
    protocols = Protocols(required=False)


@extend_schema_field({"type": "object", "additionalProperties": {}})
class DeadEvent(serializers.JSONField):
    """The event: `data`, or `data_base64` where it is not JSON."""


class DeadLetterFields(Fields):
    """An event that could not be accepted or delivered."""

    id = serializers.IntegerField(read_only=True)
    channel = serializers.CharField(read_only=True)
    address = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    detail = serializers.CharField(read_only=True)
    pointer = serializers.CharField(read_only=True)
    consumer = serializers.CharField(read_only=True)
    protocol = serializers.CharField(read_only=True)
    subscription = serializers.CharField(read_only=True, help_text="Which one gave it up; empty: it was refused.")
    attempts = serializers.IntegerField(read_only=True)
    event = DeadEvent(read_only=True)
    dead_at = serializers.DateTimeField(read_only=True)


class RedriveFields(Fields):
    """How a letter is put back."""

    as_is = serializers.BooleanField(required=False, help_text="Also where the channel's schema refuses it still.")


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "object", "properties": {"id": {"type": "integer"}, "detail": {"type": "string"}}},
    }
)
class Kept(serializers.JSONField):
    """Letters that could not be put back, and why."""


class RedrivenFields(Fields):
    """What became of several letters."""

    done = serializers.IntegerField(read_only=True)
    refused = Kept(read_only=True)
    left = serializers.IntegerField(read_only=True, help_text="How many the filters name still.")


class DeadLetterFilters(filters.FilterSet):  # type: ignore[misc]
    """What dead letters can be filtered by."""

    class Meta:
        model = DeadLetter
        fields = ("channel", "reason", "consumer", "protocol", "subscription")


class ChannelObjects(Objects):
    """Named, durable logs of events. Slashes of an address are percent-encoded in the path."""

    queryset = Channel.objects.documented()
    serializer_class = ChannelFields
    ordering = ("address",)
    lookup_field = "address"
    lookup_value_regex = ".+?"
    create_row = staticmethod(services.create_channel)
    update_row = staticmethod(services.update_channel)
    delete_row = staticmethod(services.delete_channel)


class DeadLetters(Collection):
    """Events that could not be accepted or delivered, each with its fault."""

    queryset = DeadLetter.objects.all()
    serializer_class = DeadLetterFields
    filterset_class = DeadLetterFilters
    ordering = ("-id",)
    lookup_value_regex = "[0-9]{1,18}"
    rights = {  # noqa: RUF012
        "redrive": "events.change_deadletter",
        "redrive_all": "events.change_deadletter",
        "discard_all": "events.delete_deadletter",
    }

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Forget a dead letter."""
        letters.discard(self.get_object(), by=self.operator)
        return Response(status=204)

    @extend_schema(request=RedriveFields, responses={204: None})
    @action(detail=True, methods=["post"])
    def redrive(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Put the event back to the subscription that gave it up, else on its channel, and forget the letter."""
        letters.redrive(self.get_object(), **self.read_body(RedriveFields), by=self.operator)
        return Response(status=204)

    @extend_schema(
        request=RedriveFields, responses=RedrivenFields, filters=True, operation_id="dead_letters_redrive_all"
    )
    @action(detail=False, methods=["post"], url_path="redrive", url_name="redrive-all")
    def redrive_all(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Put back the oldest 500 of those that the filters name; those that cannot be put back are kept."""
        return self._said(letters.redrive_all(self._named(), **self.read_body(RedriveFields), by=self.operator))

    @extend_schema(request=None, responses=RedrivenFields, filters=True, operation_id="dead_letters_discard_all")
    @action(detail=False, methods=["post"], url_path="discard", url_name="discard-all")
    def discard_all(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Forget the oldest 500 of those that the filters name."""
        return self._said(letters.discard_all(self._named(), by=self.operator))

    def _named(self) -> QuerySet[DeadLetter]:
        """Give those that the filters name: the same filters as a list has."""
        found: QuerySet[DeadLetter] = super(Collection, self).filter_queryset(self.get_queryset())
        return found

    def _said(self, outcome: letters.Outcome) -> Response:
        left = self._named().count()
        refused = [{"id": letter.pk, "detail": why} for letter, why in outcome.refused]
        return Response({"done": outcome.done, "refused": refused, "left": left})


def register(router: BaseRouter) -> None:
    """Add this app's collections."""
    router.register("channels", ChannelObjects, basename="channel")
    router.register("dead-letters", DeadLetters, basename="dead-letter")
