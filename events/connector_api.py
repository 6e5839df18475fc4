"""Connectors in the management API."""

from __future__ import annotations

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from consumers.api import Name
from events import connectors
from events.models import Connector, ConnectorDirection, ConnectorStart
from gateway.connectors.kinds import KINDS
from operators.objects import Fields, Objects


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Options(serializers.JSONField):
    """Options of the connector; the service validates them."""


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "state": {"type": "string", "enum": ["starting", "running", "failing", "stopped"]},
            "error": {"type": "string"},
            "since": {"type": "number"},
            "passed": {"type": "integer", "nullable": True},
            "buried": {"type": "integer", "nullable": True},
            "last_at": {"type": "number", "nullable": True},
        },
    }
)
class Health(serializers.JSONField):
    """State, last error, and what it has passed on since its process started."""


class ConnectorFields(Fields):
    """Another broker as a source or a sink of a channel."""

    name = Name()
    type = serializers.ChoiceField([(name, name) for name in KINDS])
    direction = serializers.ChoiceField(ConnectorDirection.choices)
    channel = serializers.CharField(trim_whitespace=False)
    options = Options(required=False)
    address = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    start = serializers.ChoiceField(ConnectorStart.choices, required=False)
    is_active = serializers.BooleanField(required=False)
    health = Health(read_only=True)


class ConnectorFilters(filters.FilterSet):  # type: ignore[misc]
    """Filters of connectors."""

    class Meta:
        model = Connector
        fields = ("type", "direction", "channel", "is_active")


class Connectors(Objects):
    """Other brokers as sources and sinks of channels, with their health."""

    queryset = Connector.objects.documented()
    serializer_class = ConnectorFields
    filterset_class = ConnectorFilters
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    create_row = staticmethod(connectors.create_connector)
    update_row = staticmethod(connectors.update_connector)
    delete_row = staticmethod(connectors.delete_connector)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the connectors, a page at a time."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        healths = connectors.healths() if page else {}
        return self.get_paginated_response(
            self.get_serializer([_representation(row, healths) for row in page or ()], many=True).data
        )

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create a connector, which starts within seconds."""
        return _with_health(super().create(request, *args, **kwargs))

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Update the fields in the body; the connector starts again."""
        return _with_health(super().partial_update(request, *args, **kwargs))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one connector."""
        return Response(self.get_serializer(_representation(self.get_object(), connectors.healths())).data)


def _with_health(response: Response) -> Response:
    """Add the health to a response to a write, which restarts the connector."""
    response.data["health"] = connectors.STOPPED
    return response


def _representation(row: Connector, healths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return row.representation() | {"health": healths.get(row.id, connectors.STOPPED)}


def register(router: BaseRouter) -> None:
    """Register the collection."""
    router.register("connectors", Connectors, basename="connector")
