"""Routes in the management API."""

from __future__ import annotations

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.routers import BaseRouter

from consumers.api import Name
from consumers.limits import MODES
from gateway.policies import KNOWN
from gateway.wire.header_fields import NAME, OVERRIDES
from operators.objects import Fields, Objects
from routes import services
from routes.forwarding import TIMEOUT_MAX_S
from routes.models import EncodedSlashes, Route, RouteProtocol, UpstreamAuthorization
from routes.validation import HANDLER_FIELDS, METHOD_MAX_CHARS, METHODS_MAX, PATH_MAX_CHARS


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
    name = serializers.CharField(required=False, help_text="For `placeholder`: what it stands for; calls are refused.")


class PolicyFields(serializers.Serializer[Any]):
    """One policy of a route, for the schema."""

    type = serializers.ChoiceField(sorted(KNOWN))
    options = serializers.DictField(required=False)
    mode = serializers.ChoiceField(MODES, required=False)


@extend_schema_field(
    {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": TIMEOUT_MAX_S, "nullable": True}
)
class Seconds(serializers.FloatField):
    """A time to wait, in seconds."""


class TimeoutFields(serializers.Serializer[Any]):
    """The timeouts of a route, for the schema."""

    connect_s = Seconds(required=False, help_text="To connect to the upstream.")
    first_byte_s = Seconds(required=False, help_text="Until the head of its response.")
    idle_s = Seconds(required=False, help_text="Between two parts of its response.")


class CredentialFields(serializers.Serializer[Any]):
    """The upstream's own credential, for the schema."""

    header = serializers.CharField(help_text="The name of the header: `Authorization`.")
    value = serializers.CharField(help_text="Its value: `Bearer …`.")


@extend_schema_field(HandlerFields)
class Handler(serializers.JSONField):
    """A handler; the service validates it."""


@extend_schema_field(PolicyFields(many=True))
class Policies(serializers.JSONField):
    """Policies, in the order in which they apply; the service validates them."""


@extend_schema_field(TimeoutFields)
class RouteTimeouts(serializers.JSONField):
    """Timeouts; the service validates them."""


@extend_schema_field(CredentialFields)
class Credential(serializers.JSONField):
    """A credential; the service validates and encrypts it."""


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "string", "pattern": f"^{NAME.pattern}$", "maxLength": METHOD_MAX_CHARS},
        "maxItems": METHODS_MAX,
        "description": "Any token is a method; `*` is any method.",
    }
)
class Methods(serializers.JSONField):
    """Methods; the service validates them."""


@extend_schema_field({"type": "string", "pattern": "^/", "maxLength": PATH_MAX_CHARS})
class Path(serializers.CharField):
    """A path; the service validates it."""


class RouteFields(Fields):
    """A route."""

    name = Name()
    path = Path(trim_whitespace=False)
    methods = Methods(required=False)
    protocol = serializers.ChoiceField(RouteProtocol.choices, required=False)
    handler = Handler()
    policies = Policies(required=False)
    reserved_override = serializers.BooleanField(required=False)
    imported_from = serializers.CharField(
        read_only=True, help_text="The document that an import made it from; empty if no import did."
    )
    timeouts = RouteTimeouts(required=False, help_text="Of the upstream; left out: as the settings have them.")
    preserve_host = serializers.BooleanField(
        required=False, help_text="Whether the upstream receives the caller's `Host` and not its own."
    )
    rewrite_location = serializers.BooleanField(
        required=False, help_text="Whether headers of responses that name the upstream are rewritten. Default: true."
    )
    encoded_slashes = serializers.ChoiceField(
        EncodedSlashes.choices,
        required=False,
        allow_blank=True,
        help_text="`%2F` in a segment of the path. Empty: `keep` where the path ends in `{rest...}`, else `refuse`.",
    )
    upstream_authorization = serializers.ChoiceField(
        UpstreamAuthorization.choices,
        required=False,
        help_text="`keep`: `Authorization` passes to the upstream, unless it holds a credential of the gateway.",
    )
    upstream_credential = Credential(
        required=False,
        allow_null=True,
        write_only=True,
        help_text="The upstream's own credential. It is encrypted and cannot be read again; `null` removes it.",
    )
    upstream_credential_id = serializers.CharField(
        read_only=True, help_text="Changes with the upstream's credential; empty if there is none."
    )
    idempotency = serializers.BooleanField(required=False, help_text="Whether `Idempotency-Key` is honoured on `POST`.")
    compression = serializers.BooleanField(
        required=False, help_text="Whether callers may compress the messages of a WebSocket (`permessage-deflate`)."
    )


class RouteFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of routes."""

    class Meta:
        model = Route
        fields = ("protocol", "path", "imported_from")


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
