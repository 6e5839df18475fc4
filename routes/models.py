"""Route: a path that can be called, its handler, and its policies in order."""

from __future__ import annotations

from typing import Self

from django.db import models

from audit.configured import Configured
from audit.ordered_json import OrderedJSONField
from consumers.models import name_validator
from gateway.credentials.sealed import Sealed


class RouteProtocol(models.TextChoices):
    """The protocol by which a route is called."""

    HTTP = "http", "HTTP"
    SSE = "sse", "SSE"
    WEBSOCKET = "websocket", "WebSocket"
    MQTT = "mqtt", "MQTT"


class EncodedSlashes(models.TextChoices):
    """What happens to a call with ``%2F`` in a segment of its path; empty: by the route's path."""

    REFUSE = "refuse", "Refuse"
    KEEP = "keep", "Keep"


class UpstreamAuthorization(models.TextChoices):
    """What happens to an ``Authorization`` header that is not the caller's credential for the gateway."""

    DROP = "drop", "Drop"
    KEEP = "keep", "Keep"


class RouteQuerySet(models.QuerySet["Route"]):
    """Queries of routes."""

    def documented(self) -> Self:
        """Select all that documents need."""
        return self


class Route(Configured):
    """A path that can be called. docs/configuration.md describes its fields."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    path = models.CharField(max_length=1000)
    methods = OrderedJSONField(default=list, blank=True)
    protocol = models.CharField(max_length=10, choices=RouteProtocol, default=RouteProtocol.HTTP)
    handler = OrderedJSONField()
    policies = OrderedJSONField(default=list, blank=True)
    reserved_override = models.BooleanField(default=False)
    timeouts = OrderedJSONField(default=dict, blank=True)
    preserve_host = models.BooleanField(default=False)
    rewrite_location = models.BooleanField(default=True)
    encoded_slashes = models.CharField(max_length=10, choices=EncodedSlashes, blank=True)
    upstream_authorization = models.CharField(
        max_length=10, choices=UpstreamAuthorization, default=UpstreamAuthorization.DROP
    )
    idempotency = models.BooleanField(default=False)
    compression = models.BooleanField(default=False)
    imported_from = models.CharField(max_length=300, blank=True)
    """The document that an import made it from; empty if no import did."""
    shape = models.CharField(max_length=1000, blank=True, editable=False, db_index=True)
    """The path without the names of its parameters, by which routes that would take the same calls are found."""
    sealed_credential = models.TextField(blank=True)
    """The upstream's own credential, encrypted (:mod:`gateway.credentials.sealed`); never shown."""

    _shown = (
        "name", "path", "methods", "protocol", "handler", "policies", "reserved_override", "timeouts", "preserve_host",
        "rewrite_location", "encoded_slashes", "upstream_authorization", "idempotency", "compression",
    )  # fmt: skip
    published = (*_shown, "sealed_credential")
    represented = (*_shown, "imported_from", "upstream_credential_id")
    recorded_only = ("imported_from",)

    objects = RouteQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        permissions = (("name_hook", "Can name functions (hooks) in policies"),)

    def __str__(self) -> str:
        return self.name

    @property
    def upstream_credential_id(self) -> str:
        """What tells the upstream's credential from its predecessors; empty if there is none."""
        return Sealed(self.sealed_credential).id
