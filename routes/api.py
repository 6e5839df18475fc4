"""Routes in the management API."""

from __future__ import annotations

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.routers import BaseRouter

from consumers.limits import MODES
from gateway.policies import KNOWN
from gateway.wire.header_fields import OVERRIDES
from operators.objects import Fields, Objects
from routes import services
from routes.models import Route, RouteProtocol
from routes.validation import HANDLER_FIELDS, METHODS


class HandlerFields(serializers.Serializer[Any]):
    """The handler of a route, for the schema."""

    type = serializers.ChoiceField(list(HANDLER_FIELDS))
    url = serializers.CharField(
        required=False, help_text="For `upstream`: its URL, which may contain parameters of the path."
    )
    rewrite = serializers.CharField(
        required=False, help_text="For `upstream`: the path that is requested from it instead."
    )
    override_headers = serializers.ListField(
        child=serializers.ChoiceField(sorted(OVERRIDES)),
        required=False,
        help_text="For `upstream`: headers that override the method, path or host, and are dropped otherwise.",
    )
    channel = serializers.CharField(required=False, help_text="For `channel`: its address.")
    job_type = serializers.CharField(required=False, help_text="For `job`: the type of the submitted job.")


class PolicyFields(serializers.Serializer[Any]):
    """One policy of a route, for the schema."""

    type = serializers.ChoiceField(sorted(KNOWN))
    options = serializers.DictField(required=False)
    mode = serializers.ChoiceField(MODES, required=False)


@extend_schema_field(HandlerFields)
class Handler(serializers.JSONField):
    """A handler; the service validates it."""


@extend_schema_field(PolicyFields(many=True))
class Policies(serializers.JSONField):
    """Policies, in the order in which they apply; the service validates them."""


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": list(METHODS)}})
class Methods(serializers.JSONField):
    """Methods; the service validates them."""


class RouteFields(Fields):
    """A route."""

    name = serializers.CharField(trim_whitespace=False)
    path = serializers.CharField(trim_whitespace=False)
    methods = Methods(required=False)
    protocol = serializers.ChoiceField(RouteProtocol.choices, required=False)
    handler = Handler()
    policies = Policies(required=False)
    reserved_override = serializers.BooleanField(required=False)


class RouteFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of routes."""

    class Meta:
        model = Route
        fields = ("protocol", "path")


class RouteObjects(Objects):
    """Routes."""

    queryset = Route.objects.documented()
    serializer_class = RouteFields
    filterset_class = RouteFilters
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    create_row = staticmethod(services.create_route)
    update_row = staticmethod(services.update_route)
    delete_row = staticmethod(services.delete_route)


def register(router: BaseRouter) -> None:
    """Add this app's collection."""
    router.register("routes", RouteObjects, basename="route")
