"""Route: a path that can be called, its handler, and its policies in order."""

from __future__ import annotations

from typing import Self

from django.db import models

from audit.configured import Configured
from consumers.models import name_validator


class RouteProtocol(models.TextChoices):
    """The protocol by which a route is called."""

    HTTP = "http", "HTTP"
    SSE = "sse", "SSE"
    WEBSOCKET = "websocket", "WebSocket"
    MQTT = "mqtt", "MQTT"


class RouteQuerySet(models.QuerySet["Route"]):
    """Queries of routes."""

    def documented(self) -> Self:
        """Select all that documents need."""
        return self


class Route(Configured):
    """A path that can be called. docs/configuration.md describes ``handler`` and ``policies``."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    path = models.CharField(max_length=1000)
    methods = models.JSONField(default=list, blank=True)
    protocol = models.CharField(max_length=10, choices=RouteProtocol, default=RouteProtocol.HTTP)
    handler = models.JSONField()
    policies = models.JSONField(default=list, blank=True)
    reserved_override = models.BooleanField(default=False)

    published = represented = ("name", "path", "methods", "protocol", "handler", "policies", "reserved_override")

    objects = RouteQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        permissions = (("name_hook", "Can name functions (hooks) in policies"),)

    def __str__(self) -> str:
        return self.name
