"""Every change of channels and dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.dateparse import parse_datetime

from audit import bus, recording
from audit.services import record
from events.models import Channel, DeadLetter
from gateway.subjects import AddressError, overlap, subject_of
from gateway.validation import InvalidSchema, compile_schema

RETENTION_FIELDS = ("max_age_s", "max_bytes", "max_events")
PROTOCOLS = ("http", "sse", "websocket", "mqtt", "amqp")
RETENTION_MAX = 10**13
DETAIL_MAX, POINTER_MAX = 1000, 500


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
        retention=_retention(retention or {}),
        protocols=_protocols(protocols or []),
    )
    _check_address(channel)
    return recording.create("channel", channel, address, by=by)


def update_channel(channel: Channel, *, by: str, **changes: Any) -> Channel:
    """Change a channel; its events and its readers stay. Raises ValidationError."""
    if "address" in changes:
        raise ValidationError({"address": "Cannot be changed; declare a new channel."})
    readers = {"schema": _schema, "retention": _retention, "protocols": _protocols}
    changes = {name: readers[name](value) if name in readers else value for name, value in changes.items()}
    return recording.update("channel", channel, channel.address, changes, by=by)


def delete_channel(channel: Channel, *, by: str) -> None:
    """Take a channel away. Its stored events stay in JetStream until their age, and return if it is declared again."""
    recording.delete("channel", channel, channel.address, by=by)


def record_dead_letter(sequence: int, document: Mapping[str, Any]) -> None:
    """Keep an event that could not be accepted; once for each sequence of the stream it came on."""
    dead_at = parse_datetime(str(document.get("dead_at", ""))) or datetime.now(UTC)
    DeadLetter.objects.get_or_create(
        sequence=sequence,
        defaults={
            "channel": document["channel"],
            "address": document.get("address") or document["channel"],
            "reason": document["reason"],
            "detail": str(document.get("detail", ""))[:DETAIL_MAX],
            "pointer": str(document.get("pointer", ""))[:POINTER_MAX],
            "consumer": document.get("consumer", ""),
            "protocol": document.get("protocol", ""),
            "attempts": int(document.get("attempts", 1)),
            "event": document["event"],
            "dead_at": dead_at,
        },
    )


def redrive(letter: DeadLetter, *, by: str) -> None:
    """Put a dead letter's event back on its channel and forget the letter. Raises ValidationError.

    An operator's decision stands above the schema: the event is stored as it is.
    """
    if "data" not in letter.event:
        raise ValidationError("Its payload is not JSON; discard it, or publish a mended event.")
    try:
        subject = subject_of(letter.address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    if not Channel.objects.filter(address=letter.channel).exists():
        raise ValidationError({"channel": "There is no such channel any more."})
    with transaction.atomic():
        record("dead-letter", str(letter.pk), before=letter.document(), after=None, note="redriven", by=by)
        # Stored before the letter is forgotten: a fault between the two leaves both, never neither.
        bus.store(
            subject,
            orjson.dumps(letter.event["data"]),
            {
                "ce-specversion": "1.0",
                "ce-type": "event",
                "ce-source": f"/consumers/{letter.consumer}",
                "content-type": "application/json",
                "Nats-Msg-Id": f"redrive-{letter.sequence}",
            },
        )
        letter.delete()


def discard(letter: DeadLetter, *, by: str) -> None:
    """Forget a dead letter."""
    with transaction.atomic():
        record("dead-letter", str(letter.pk), before=letter.document(), after=None, note="discarded", by=by)
        letter.delete()


def _check_address(channel: Channel) -> None:
    try:
        subject = channel.subject
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    for other in Channel.objects.exclude(pk=channel.pk):
        if other.address != channel.address and overlap(subject, other.subject):
            raise ValidationError({"address": f"Overlaps with the channel {other.address}."})


def _schema(schema: Any) -> Any:
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise ValidationError({"schema": "A JSON Schema is an object."})
    try:
        compile_schema(schema)
    except InvalidSchema as error:
        raise ValidationError({"schema": f"{error}"}) from None
    return dict(schema)


def _retention(retention: Any) -> dict[str, Any]:
    if not isinstance(retention, Mapping):
        raise ValidationError({"retention": "An object."})
    for name, value in retention.items():
        if name not in RETENTION_FIELDS:
            raise ValidationError({f"retention.{name}": f"Unknown field; there are {', '.join(RETENTION_FIELDS)}."})
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= RETENTION_MAX:
            raise ValidationError({f"retention.{name}": "Must be a number greater than 0."})
    return dict(retention)


def _protocols(protocols: Any) -> list[str]:
    if not isinstance(protocols, list) or any(name not in PROTOCOLS for name in protocols):
        raise ValidationError({"protocols": f"A list of {', '.join(PROTOCOLS)}."})
    return list(dict.fromkeys(protocols))
