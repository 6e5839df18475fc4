"""Route: a path that may be called, what handles it, and its policies in order."""

from __future__ import annotations

from typing import Self

from django.db import models

from audit.configured import Configured
from consumers.models import name_validator


class RouteProtocol(models.TextChoices):
    """How a route is called."""

    HTTP = "http", "HTTP"
    SSE = "sse", "SSE"
    WEBSOCKET = "websocket", "WebSocket"
    MQTT = "mqtt", "MQTT"


class RouteQuerySet(models.QuerySet["Route"]):
    """Reads of routes."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class Route(Configured):
    """What may be called. ``handler`` and ``policies`` have the shapes of docs/configuration.md."""

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

    def __str__(self) -> str:
        return self.name
