"""The protocols that calls come by."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """The five protocols of callers, and connectors. The value is the label in usage and the management API."""

    HTTP = "http"
    SSE = "sse"
    WEBSOCKET = "websocket"
    MQTT = "mqtt"
    AMQP = "amqp"
    CONNECTOR = "connector"
    """Another broker, connected by the operator. Callers do not use it, so a channel cannot exclude it."""
