"""Services that record, redrive and discard dead letters."""

from __future__ import annotations

import base64
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.dateparse import parse_datetime

from audit import bus, recording
from audit.storable import require_plain
from events import registry
from events.letter_bounds import trim
from events.models import Channel, DeadLetter, DeadLetterPosition, Subscription
from gateway.durable.dead_letter import CUT
from gateway.durable.readers import DEAD_ID_HEADER, SUBJECT_HEADER
from gateway.log.event import EVENT_TYPE, encoded, rfc3339
from gateway.log.expiry import EXPIRY, read_expiry
from gateway.log.streams import redriven_subject
from gateway.refusals import Refused
from gateway.schemas.checker import Validators
from gateway.schemas.registered import subject_named
from gateway.wire.content_types import JSON_TYPE, describe, is_json, is_text, media_type_of, takes
from gateway.wire.strict_json import dump, fail, parse
from gateway.wire.subjects import AddressError, reading_filter, subject_of
from gateway.wire.traceparent import parse_traceparent

logger = logging.getLogger(__name__)

Message = tuple[str, bytes, dict[str, str]]
"""Subject, payload and headers of what is stored in the log."""
Covering = Callable[[str], Channel | None]
"""Finds the channel that owns the addresses of a subject filter."""

_TEXTS = {
    "channel": 200,
    "address": 1024,
    "reason": 40,
    "detail": 1000,
    "pointer": 500,
    "consumer": 100,
    "protocol": 10,
    "subscription": 40,
}


def position(made_at: str) -> int:
    """Return how far the stream created at ``made_at`` has been read."""
    row = DeadLetterPosition.objects.filter(made_at=made_at).first()
    return row.sequence if row is not None else 0


def record_dead_letters(letters: Iterable[tuple[int, bytes]], made_at: str) -> None:
    """Record letters of the stream, each exactly once, however often they are passed and by however many callers.

    A letter that cannot be read is logged and skipped, so that it does not block those after it.
    """
    with transaction.atomic():
        DeadLetterPosition.objects.get_or_create(made_at=made_at)
        stored = DeadLetterPosition.objects.select_for_update().get(made_at=made_at)
        fresh = [(sequence, data) for sequence, data in letters if sequence > stored.sequence]
        rows = [row for sequence, data in fresh if (row := _letter(sequence, data, made_at)) is not None]
        DeadLetter.objects.bulk_create(rows)
        trim(row.channel for row in rows)
        if fresh:
            stored.sequence = max(sequence for sequence, _ in fresh)
            stored.save(update_fields=["sequence"])


def redrive(letter: DeadLetter, *, as_is: bool = False, by: str) -> None:
    """Store a dead letter's event again and delete the letter.

    It goes to the subscription that could not deliver it, else to its channel, which validates it unless ``as_is``.
    Raises ValidationError if it cannot be redriven, and bus.Unavailable; the letter is then kept.
    """
    # Stored before the letter is deleted: after a failure between the two, the next attempt is deduplicated.
    bus.store(*_message(letter, Channel.objects.covering, as_is=as_is))
    recording.delete("dead-letter", letter, str(letter.pk), note="redriven", by=by)


def store_all(
    batch: Iterable[DeadLetter], *, as_is: bool = False
) -> tuple[list[DeadLetter], list[tuple[DeadLetter, str]]]:
    """Store the events of several letters again, in order, as :func:`redrive` does, and leave the letters.

    Returns the letters whose events are stored, and the others with the reason. Raises bus.Unavailable.
    """
    stored, refused, messages = [], [], []
    covering = functools.cache(Channel.objects.covering)
    for letter in batch:
        try:
            messages.append(_message(letter, covering, as_is=as_is))
        except ValidationError as error:
            refused.append((letter, " ".join(error.messages)))
        else:
            stored.append(letter)
    bus.store_all(messages)
    return stored, refused


def discard(letter: DeadLetter, *, by: str) -> None:
    """Delete a dead letter. Raises ValidationError if it no longer exists."""
    recording.delete("dead-letter", letter, str(letter.pk), note="discarded", by=by)


def _message(letter: DeadLetter, covering: Covering, *, as_is: bool) -> Message:
    """Return what is to be stored to redrive a letter. Raises ValidationError."""
    if letter.event.get(CUT):
        raise ValidationError("The event is too large: only its beginning was kept. Discard the letter.")
    _require_unexpired(letter)
    headers = _attributes(letter)
    try:
        subject = subject_of(letter.address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    if letter.subscription:
        subscription = Subscription.objects.filter(id=letter.subscription).first()
        if subscription is None:
            raise ValidationError({"subscription": "The subscription no longer exists. Discard the letter."})
        channel = _owner(covering(reading_filter(subscription.channel)))
        headers |= {SUBJECT_HEADER: subject, DEAD_ID_HEADER: str(letter.event.get("id") or "")}
        return redriven_subject(channel.stream, letter.subscription), _data(letter.event), headers
    channel = _owner(covering(subject))
    data = _data(letter.event)
    _check(channel, letter.event, data, as_is=as_is)
    return channel.subject_prefix + subject, data, headers


def _owner(channel: Channel | None) -> Channel:
    """Return the channel that owns the addresses by now. Raises ValidationError if there is none."""
    if channel is None:
        raise ValidationError({"channel": "The channel no longer exists."})
    return channel


def _require_unexpired(letter: DeadLetter) -> None:
    """Raise ValidationError for an event that has expired: it would be stored and delivered to nobody."""
    expires_at = read_expiry((letter.event.get("extensions") or {}).get(EXPIRY))
    if expires_at is not None and expires_at <= time.time():
        raise ValidationError("The event has expired. Discard the letter.")


def _attributes(letter: DeadLetter) -> dict[str, str]:
    """Return the event's attributes as headers, with defaults: those of a refused event were never validated."""
    event = letter.event
    headers = {
        **{f"ce-{name}": value for name, value in (event.get("extensions") or {}).items()},
        "ce-specversion": "1.0",
        "ce-type": event.get("type") or EVENT_TYPE,
        "ce-source": event.get("source") or f"/consumers/{letter.consumer}",
        "ce-time": event.get("time") or rfc3339(datetime.now(UTC)),
        "ce-subject": event.get("subject"),
        "ce-id": event.get("published_id"),
        "content-type": _content_type(event),
        "traceparent": parse_traceparent(str(event.get("traceparent") or "")),
        "Nats-Msg-Id": f"redrive-{letter.made_at}-{letter.sequence}",
    }
    return {name: encoded(str(value)) for name, value in headers.items() if value}


def _content_type(event: Mapping[str, Any]) -> str:
    return event.get("content_type") or JSON_TYPE


def _data(event: Mapping[str, Any]) -> bytes:
    """Return the payload as it was published."""
    if "data" not in event:
        return base64.b64decode(event["data_base64"])
    if "data_text" in event:
        return str(event["data_text"]).encode()
    data = event["data"]
    return data.encode() if isinstance(data, str) and not is_json(_content_type(event)) else dump(data)


def _check(channel: Channel, event: Mapping[str, Any], data: bytes, *, as_is: bool) -> None:
    """Validate an event again. Raises ValidationError if its channel does not take it or its schema rejects it."""
    content_type = _content_type(event)
    if not takes(channel.content_type, content_type):
        raise ValidationError(f"The channel takes {describe(channel.content_type)}, not {content_type}.")
    try:
        if not is_json(content_type):
            if is_text(media_type_of(channel.content_type)):
                data.decode()
            return
        value = parse(data)
    except (Refused, UnicodeDecodeError):
        kind = "JSON" if is_json(content_type) else "text in UTF-8"
        raise ValidationError(f"The payload is not {kind}. Discard the letter, or publish a corrected event.") from None
    try:
        if not as_is:
            _require_valid(channel, value)
    except Refused as refused:
        at, detail = refused.members.get("pointer") or "/", refused.detail.rstrip(".")
        raise ValidationError(
            f"The channel's schema still rejects it, at {at}: {detail}. Change the schema, or redrive as is."
        ) from None


def _require_valid(channel: Channel, value: Any) -> None:
    subject = subject_named(channel.schema)
    schema = registry.latest(subject) if subject else None
    if schema is not None:
        schema.check(value)
    elif subject:
        fail(f"The subject {subject} has no schema in the registry.")
    else:
        Validators().check(channel.schema, value)


def _letter(sequence: int, data: bytes, made_at: str) -> DeadLetter | None:
    try:
        document = json.loads(data)  # which keeps every digit of an integer
        texts = {name: _text(document.get(name, ""), most) for name, most in _TEXTS.items()}
        event = _event(document["event"])
        return DeadLetter(
            made_at=made_at,
            sequence=sequence,
            **texts | {"address": texts["address"] or texts["channel"]},
            attempts=int(document.get("attempts") or 1),
            event=event,
            event_bytes=len(json.dumps(event)),
            dead_at=_instant(document.get("dead_at")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        logger.exception("dead letter %d could not be read", sequence)
        return None


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event as a JSON column can store it: data that it cannot store is kept as base64."""
    stored = dict(event)
    try:
        require_plain(stored)
    except (TypeError, ValueError):
        stored["data_base64"] = base64.b64encode(_data(stored)).decode()
        del stored["data"]
        stored.pop("data_text", None)
        require_plain(stored)
    return stored


def _text(value: Any, most: int) -> str:
    return str(value).replace("\x00", "\ufffd")[:most]


def _instant(text: Any) -> datetime:
    try:
        instant = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        instant = None
    return instant if instant is not None and instant.tzinfo is not None else datetime.now(UTC)
