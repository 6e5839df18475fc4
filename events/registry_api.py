"""The schema registry in the management API: read subjects, set their compatibility level and mode."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from events import registry
from events.models import Subject
from events.registry import GLOBAL, Compatibility, Mode
from operators.objects import Collection, Fields


@extend_schema_field(
    {
        "type": "object",
        "nullable": True,
        "properties": {
            "version": {"type": "integer"},
            "id": {"type": "integer"},
            "type": {"type": "string", "enum": ["JSON", "AVRO"]},
            "schema": {"type": "string"},
        },
    }
)
class Latest(serializers.JSONField):
    """The latest version, by which channels that name the subject validate events."""


class SubjectFields(Fields):
    """The fields of a subject of the schema registry."""

    name = serializers.CharField(read_only=True)
    compatibility = serializers.ChoiceField([(each.value, each.value) for each in Compatibility], required=False)
    mode = serializers.ChoiceField([(each.value, each.value) for each in Mode], required=False)
    versions = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    latest = Latest(read_only=True)

    def to_representation(self, instance: Subject) -> dict[str, Any]:
        """Return the representation, with the effective level and mode."""
        latest = instance.latest
        versions = instance.versions.all() if instance.pk else ()
        return {
            "name": instance.name,
            "compatibility": registry.compatibility_of(instance.name).value,
            "mode": registry.mode_of(instance.name).value,
            "versions": [version.version for version in versions if not version.is_deleted],
            "latest": latest and {name: latest[name] for name in ("version", "id", "type", "schema")},
        }


class Schemas(Collection):
    """Subjects of the schema registry; their versions are registered at `/registry`.

    The subject `*` holds the level and the mode of all subjects that have none of their own; it is not listed.
    """

    queryset = Subject.objects.exclude(name=GLOBAL).prefetch_related("versions")
    serializer_class = SubjectFields
    lookup_field = "name"
    lookup_value_regex = ".+?"
    http_method_names = ("get", "head", "options", "patch")

    def get_object(self) -> Subject:
        """Return the subject in the URL, or the row of the defaults, which may not be stored yet. Raises Http404."""
        if self.kwargs[self.lookup_field] == GLOBAL:
            return Subject.objects.filter(name=GLOBAL).first() or Subject(name=GLOBAL)
        subject: Subject = super().get_object()
        return subject

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Set the compatibility level or the mode of a subject."""
        row = self.get_object()
        fields = self.get_serializer(data=request.data)
        fields.is_valid(raise_exception=True)
        if fields.validated_data:
            registry.configure(row.name, by=self.operator, **fields.validated_data)
        return Response(self.get_serializer(self.get_object()).data)


def register(router: BaseRouter) -> None:
    """Register the collection."""
    router.register("schemas", Schemas, basename="schema")
