"""Every change of channels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from audit.locks import lock_configuration
from events.letters import discard, record_dead_letters, redrive
from events.models import Channel
from events.registry import latest
from gateway.schemas.checker import compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.wire.subjects import AddressError, Template, overlap

__all__ = ["create_channel", "delete_channel", "discard", "record_dead_letters", "redrive", "update_channel"]

PROTOCOLS = ("http", "sse", "websocket", "mqtt", "amqp")
RETENTION_MAX = {"max_age_s": 100 * 366 * 24 * 3600, "max_bytes": 10**15, "max_events": 10**15}
FIELDS = ("title", "schema", "on_invalid", "retention", "protocols")


def create_channel(
    *,
    address: str,
    title: str = "",
    schema: Mapping[str, Any] | None = None,
    on_invalid: str = "reject",
    retention: Mapping[str, Any] | None = None,
    protocols: list[str] | None = None,
    by: str,
) -> Channel:
    """Declare a channel; its stream is made within a second. Raises ValidationError."""
    channel = Channel(
        address=address,
        title=title,
        schema=_schema(schema),
        on_invalid=on_invalid,
        retention=_retention({} if retention is None else retention),
        protocols=_protocols([] if protocols is None else protocols),
    )
    with transaction.atomic():
        lock_configuration()
        _check_address(address)
        return recording.create("channel", channel, address, by=by)


def update_channel(channel: Channel, *, by: str, **changes: Any) -> Channel:
    """Change a channel; its events and its readers stay. Raises ValidationError."""
    readers = {"schema": _schema, "retention": _retention, "protocols": _protocols}
    for field in changes:
        if field == "address":
            raise ValidationError({field: "Cannot be changed; declare a new channel."})
        if field not in FIELDS:
            raise ValidationError({field: f"Unknown field; what can be changed: {', '.join(FIELDS)}."})
    read = {field: readers[field](value) if field in readers else value for field, value in changes.items()}
    return recording.update("channel", channel, channel.address, read, by=by)


def delete_channel(channel: Channel, *, by: str) -> None:
    """Take a channel away. Its stored events stay until their age, and are there if it is declared again by then."""
    recording.delete("channel", channel, channel.address, by=by)


def _check_address(address: Any) -> None:
    if not isinstance(address, str):
        raise ValidationError({"address": "Must be a text."})
    try:
        subject = _subject(address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    if subject.startswith("*."):
        # It would match what NATS and we keep under `$…`, `_INBOX` and `_apimgmt`.
        raise ValidationError({"address": "Only a later level may be a parameter, unless it is the only one."})
    for other in Channel.objects.values_list("address", flat=True):
        if other != address and overlap(subject, _subject(other)):
            raise ValidationError({"address": f"Overlaps with the channel {other}."})


@lru_cache(maxsize=16_384)
def _subject(address: str) -> str:
    return Template.parse(address).subject


def _schema(schema: Any) -> Any:
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise ValidationError({"schema": "A JSON Schema is an object."})
    if set(schema) == {"subject"}:
        if not isinstance(schema["subject"], str) or latest(schema["subject"]) is None:
            raise ValidationError({"schema": "The registry has no schema of this subject: register one first."})
        return dict(schema)
    try:
        compile_schema(schema)
    except InvalidSchema as error:
        raise ValidationError({"schema": f"{error}"}) from None
    return dict(schema)


def _retention(retention: Any) -> dict[str, Any]:
    if not isinstance(retention, Mapping):
        raise ValidationError({"retention": "An object."})
    found = {}
    for name, value in retention.items():
        if name not in RETENTION_MAX:
            raise ValidationError({f"retention.{name}": f"Unknown field; there are {', '.join(RETENTION_MAX)}."})
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= RETENTION_MAX[name]:
            raise ValidationError({f"retention.{name}": f"Must be a number from 1 to {RETENTION_MAX[name]}."})
        if value != int(value):
            raise ValidationError({f"retention.{name}": "Must be a whole number."})
        found[name] = int(value)
    return found


def _protocols(protocols: Any) -> list[str]:
    if not isinstance(protocols, list | tuple) or any(name not in PROTOCOLS for name in protocols):
        raise ValidationError({"protocols": f"A list of {', '.join(PROTOCOLS)}."})
    return list(dict.fromkeys(protocols))
