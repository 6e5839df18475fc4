"""Channels and dead letters in the management API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.routers import BaseRouter

from events import letter_jobs, letters, services
from events.letter_job_api import LetterJobFields
from events.letter_job_models import LetterAction
from events.models import Channel, DeadLetter, OnInvalid
from events.services import PROTOCOLS, RETENTION_MAX
from gateway.wire.content_types import CONTENT_TYPE_MAX_CHARS, PATTERN
from operators.filters import EVERY
from operators.objects import Collection, Fields, Objects

EVERY_ROW = OpenApiParameter(EVERY, OpenApiTypes.BOOL, description="`true` for every row, instead of filters.")


class RetentionFields(serializers.Serializer[Any]):
    """Bounds of retention, for the OpenAPI document."""

    max_age_s = serializers.FloatField(required=False, min_value=1, max_value=RETENTION_MAX["max_age_s"])
    max_bytes = serializers.FloatField(required=False, min_value=1, max_value=RETENTION_MAX["max_bytes"])
    max_events = serializers.FloatField(required=False, min_value=1, max_value=RETENTION_MAX["max_events"])


@extend_schema_field({"type": "object", "nullable": True, "additionalProperties": {}})
class JsonSchema(serializers.JSONField):
    """A JSON Schema; the service validates it."""


@extend_schema_field(RetentionFields)
class Retention(serializers.JSONField):
    """Bounds of retention; the service validates them."""


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": list(PROTOCOLS)}})
class Protocols(serializers.JSONField):
    """The allowed protocols; an empty list allows all. The service validates them."""


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {"enum": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["enum"],
            "additionalProperties": False,
        },
    }
)
class Parameters(serializers.JSONField):
    """The values that parameters of the address may have. The service validates them."""


@extend_schema_field({"type": "string", "pattern": PATTERN, "maxLength": CONTENT_TYPE_MAX_CHARS})
class ContentType(serializers.CharField):
    """What the events of a channel are; the service validates it."""


class ChannelFields(Fields):
    """The fields of a channel."""

    address = serializers.CharField(trim_whitespace=False)
    title = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    content_type = ContentType(
        required=False, help_text="`json` (default), `text`, `bytes` or a media type: what its events are."
    )
    schema = JsonSchema(required=False, allow_null=True)
    on_invalid = serializers.ChoiceField(OnInvalid.choices, required=False)
    retention = Retention(required=False)
    protocols = Protocols(required=False)
    parameters = Parameters(required=False)
    imported_from = serializers.CharField(
        read_only=True, help_text="The document that an import made it from; empty if no import did."
    )


@extend_schema_field({"type": "object", "additionalProperties": {}})
class DeadEvent(serializers.JSONField):
    """The event: `content_type`, and `data`, or `data_base64` if it is neither JSON nor text."""


class ListedDeadLetterFields(Fields):
    """The fields of a dead letter in the list, which leaves out the event: it may be large."""

    id = serializers.IntegerField(read_only=True)
    channel = serializers.CharField(read_only=True)
    address = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    detail = serializers.CharField(read_only=True)
    pointer = serializers.CharField(read_only=True)
    consumer = serializers.CharField(read_only=True)
    protocol = serializers.CharField(read_only=True)
    subscription = serializers.CharField(
        read_only=True, help_text="The subscription that could not deliver it; empty if it was refused."
    )
    attempts = serializers.IntegerField(read_only=True)
    event_bytes = serializers.IntegerField(read_only=True, help_text="The size of the event.")
    dead_at = serializers.DateTimeField(read_only=True)


class DeadLetterFields(ListedDeadLetterFields):
    """The fields of an event that could not be accepted or delivered."""

    event = DeadEvent(read_only=True)

    def to_representation(self, instance: DeadLetter) -> dict[str, Any]:
        """Return the representation of a letter, with its event."""
        return super().to_representation(instance) | {"event": instance.event}


class RedriveFields(Fields):
    """How a letter is redriven."""

    as_is = serializers.BooleanField(required=False, help_text="Skip validation by the channel's schema.")


class DeadLetterFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of dead letters."""

    class Meta:
        model = DeadLetter
        fields = ("channel", "reason", "consumer", "protocol", "subscription")


class ChannelObjects(Objects):
    """Named, durable logs of events. Slashes in an address are percent-encoded in the path."""

    queryset = Channel.objects.documented()
    serializer_class = ChannelFields
    ordering = ("address",)
    lookup_field = "address"
    lookup_value_regex = ".+?"
    create_row = staticmethod(services.create_channel)
    update_row = staticmethod(services.update_channel)
    delete_row = staticmethod(services.delete_channel)


class DeadLetters(Collection):
    """Events that could not be accepted or delivered, each with its reason."""

    queryset = DeadLetter.objects.all()
    filterset_class = DeadLetterFilters
    ordering = ("-id",)
    lookup_value_regex = "[0-9]{1,18}"
    bulk_actions = ("redrive_all", "discard_all")
    rights = {  # noqa: RUF012
        "redrive": "events.change_deadletter",
        "redrive_all": "events.change_deadletter",
        "discard_all": "events.delete_deadletter",
    }

    def get_serializer_class(self) -> type[Fields]:
        """Return the fields of the list, or those of one letter, which include its event."""
        return ListedDeadLetterFields if self.action == "list" else DeadLetterFields

    def get_queryset(self) -> QuerySet[DeadLetter]:
        """Return the letters; without their events in lists, and where they are discarded."""
        rows: QuerySet[DeadLetter] = super().get_queryset()
        return rows.defer("event") if self.action in ("list", "discard_all", "destroy") else rows

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Discard a dead letter."""
        letters.discard(self.get_object(), by=self.operator)
        return Response(status=204)

    @extend_schema(request=RedriveFields, responses={204: None})
    @action(detail=True, methods=["post"])
    def redrive(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Redrive the event to the subscription that could not deliver it, or to its channel, and delete the letter."""
        letters.redrive(self.get_object(), **self.read_body(RedriveFields), by=self.operator)
        return Response(status=204)

    @extend_schema(
        request=RedriveFields,
        responses={202: LetterJobFields},
        parameters=[EVERY_ROW],
        filters=True,
        operation_id="dead_letters_redrive_all",
    )
    @action(detail=False, methods=["post"], url_path="redrive", url_name="redrive-all")
    def redrive_all(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Start a job that redrives the letters that match the filters; those that cannot be redriven are kept."""
        return self._start(LetterAction.REDRIVE, **self.read_body(RedriveFields))

    @extend_schema(
        request=None,
        responses={202: LetterJobFields},
        parameters=[EVERY_ROW],
        filters=True,
        operation_id="dead_letters_discard_all",
    )
    @action(detail=False, methods=["post"], url_path="discard", url_name="discard-all")
    def discard_all(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Start a job that discards the letters that match the filters."""
        return self._start(LetterAction.DISCARD)

    def _start(self, action_: LetterAction, **options: Any) -> Response:
        self.filter_queryset(self.get_queryset())  # refuses what is no filter, and a request without any
        selection = {name: str(value).strip() for name, value in self.request.query_params.items() if name != EVERY}
        job = letter_jobs.start_job(action=action_, selection=selection, **options, by=self.operator)
        location = reverse("dead-letter-job-detail", [job.id], request=self.request)
        return Response(LetterJobFields(job).data, 202, headers={"Location": location})


def register(router: BaseRouter) -> None:
    """Register this app's collections."""
    router.register("channels", ChannelObjects, basename="channel")
    router.register("dead-letters", DeadLetters, basename="dead-letter")
