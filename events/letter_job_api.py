"""Jobs that redrive or discard many dead letters, in the management API."""

from __future__ import annotations

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from events import letter_jobs
from events.letter_job_models import DeadLetterJob, LetterAction, LetterJobState
from operators.objects import Collection, Fields


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Selection(serializers.JSONField):
    """The filters that select the letters, or their `ids`; empty for all."""


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "object", "properties": {"id": {"type": "integer"}, "detail": {"type": "string"}}},
    }
)
class Kept(serializers.JSONField):
    """The first 100 letters that could not be redriven, with the reason."""


class LetterJobFields(Fields):
    """A job of dead letters and its progress. It has ended once `ended_at` is set."""

    id = serializers.CharField(read_only=True)
    action = serializers.ChoiceField(LetterAction.choices, read_only=True)
    selection = Selection(read_only=True)
    as_is = serializers.BooleanField(read_only=True)
    state = serializers.ChoiceField(LetterJobState.choices, read_only=True)
    detail = serializers.CharField(read_only=True, help_text="Why it failed or was cancelled.")
    total = serializers.IntegerField(read_only=True, help_text="How many letters were selected.")
    done = serializers.IntegerField(read_only=True)
    failed = serializers.IntegerField(
        read_only=True, help_text="How many letters could not be redriven; they are kept."
    )
    refused = Kept(read_only=True)
    created_by = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    started_at = serializers.DateTimeField(read_only=True, allow_null=True)
    ended_at = serializers.DateTimeField(read_only=True, allow_null=True)


class LetterJobFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of the jobs of dead letters."""

    class Meta:
        model = DeadLetterJob
        fields = ("action", "state")


class LetterJobs(Collection):
    """Jobs that redrive or discard many dead letters. They are kept for 30 days after their end."""

    queryset = DeadLetterJob.objects.all()
    serializer_class = LetterJobFields
    filterset_class = LetterJobFilters
    ordering = ("-created_at", "id")
    lookup_value_regex = "[a-z0-9_]+"
    rights = {  # noqa: RUF012
        "list": "events.view_deadletter",
        "retrieve": "events.view_deadletter",
        "destroy": "events.change_deadletter",
    }

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Cancel a job that has not ended. What it has settled stays so."""
        letter_jobs.cancel_job(self.get_object(), by=self.operator)
        return Response(status=204)


def register(router: BaseRouter) -> None:
    """Register the collection."""
    router.register("dead-letter-jobs", LetterJobs, basename="dead-letter-job")
