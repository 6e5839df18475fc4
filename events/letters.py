"""What becomes of dead letters: kept once, put back on their channel, or forgotten."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime

from audit import bus, recording
from audit.storable import require_plain
from events import registry
from events.models import Channel, DeadLetter, DeadLetterPosition, Subscription
from gateway.durable.readers import ADDRESS_HEADER, DEAD_ID_HEADER
from gateway.log.event import EVENT_TYPE, JSON_TYPE, encoded, rfc3339
from gateway.log.streams import redriven_subject
from gateway.refusals import Refused
from gateway.schemas.checker import Validators
from gateway.schemas.registered import subject_named
from gateway.wire.strict_json import dump, fail, parse
from gateway.wire.subjects import AddressError, subject_of
from gateway.wire.traceparent import parse_traceparent

logger = logging.getLogger(__name__)

Message = tuple[str, bytes, dict[str, str]]
"""Where something is stored, what, and with which headers."""
AT_ONCE_MAX = 500
"""Letters that one call puts back or forgets; the next call takes the next."""

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


@dataclass
class Outcome:
    """What became of several letters."""

    done: int = 0
    refused: list[tuple[DeadLetter, str]] = field(default_factory=list)
    """Those that could not be put back, and why."""


def position(made_at: str) -> int:
    """Say how far the stream that was made at that instant has been read."""
    known = DeadLetterPosition.objects.filter(made_at=made_at).first()
    return known.sequence if known is not None else 0


def record_dead_letters(letters: Iterable[tuple[int, bytes]], made_at: str) -> None:
    """Keep what lay on the stream of dead letters, each exactly once, whoever asks and how often.

    A letter that cannot be read is logged and left out: it must not hold up those behind it.
    """
    with transaction.atomic():
        DeadLetterPosition.objects.get_or_create(made_at=made_at)
        known = DeadLetterPosition.objects.select_for_update().get(made_at=made_at)
        fresh = [(sequence, data) for sequence, data in letters if sequence > known.sequence]
        rows = [row for sequence, data in fresh if (row := _letter(sequence, data, made_at)) is not None]
        DeadLetter.objects.bulk_create(rows)
        if fresh:
            known.sequence = max(sequence for sequence, _ in fresh)
            known.save(update_fields=["sequence"])


def redrive(letter: DeadLetter, *, as_is: bool = False, by: str) -> None:
    """Put a dead letter's event back and forget the letter: to the subscription that gave it up, else on its channel.

    What the channel's schema refused is looked at again, unless it is to be put back ``as_is``. Raises ValidationError
    where it cannot be put back, and bus.Unavailable when NATS does not answer; the letter is then kept.
    """
    # Stored before the letter is forgotten: a fault between the two keeps the letter, and the next try stores nothing
    # twice.
    bus.store(*_message(letter, as_is=as_is))
    recording.delete("dead-letter", letter, str(letter.pk), note="redriven", by=by)


def redrive_all(found: QuerySet[DeadLetter], *, as_is: bool = False, by: str) -> Outcome:
    """Put back the oldest of these, at most :data:`AT_ONCE_MAX`, in their order, as :func:`redrive` does."""
    outcome = Outcome()
    messages = []
    for letter in found.order_by("id")[:AT_ONCE_MAX]:
        try:
            messages.append((letter, _message(letter, as_is=as_is)))
        except ValidationError as error:
            outcome.refused.append((letter, " ".join(error.messages)))
    bus.store_all([message for _, message in messages])
    outcome.done = sum(_forgotten(letter, "redriven", by) for letter, _ in messages)
    return outcome


def discard(letter: DeadLetter, *, by: str) -> None:
    """Forget a dead letter. Raises ValidationError where somebody else has."""
    recording.delete("dead-letter", letter, str(letter.pk), note="discarded", by=by)


def discard_all(found: QuerySet[DeadLetter], *, by: str) -> Outcome:
    """Forget the oldest of these, at most :data:`AT_ONCE_MAX`."""
    letters = found.order_by("id")[:AT_ONCE_MAX]
    return Outcome(done=sum(_forgotten(letter, "discarded", by) for letter in letters))


def _forgotten(letter: DeadLetter, note: str, by: str) -> bool:
    try:
        recording.delete("dead-letter", letter, str(letter.pk), note=note, by=by)
    except ValidationError:
        return False  # somebody else was faster
    return True


def _message(letter: DeadLetter, *, as_is: bool) -> Message:
    """Say what is stored where to put a letter's event back. Raises ValidationError."""
    channel = Channel.objects.filter(address=letter.channel).first()
    if channel is None:
        raise ValidationError({"channel": "There is no such channel any more."})
    try:
        subject = subject_of(letter.address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    headers = _attributes(letter)
    if letter.subscription:
        if not Subscription.objects.filter(id=letter.subscription).exists():
            raise ValidationError({"subscription": "Is gone: discard the letter, or read the event in its channel."})
        subject = redriven_subject(channel.document()["stream"], letter.subscription)
        headers |= {ADDRESS_HEADER: letter.address, DEAD_ID_HEADER: str(letter.event.get("id") or "")}
        return subject, _data(letter), headers
    data = _data(letter)
    _check(channel, data, as_is=as_is)
    return subject, data, headers


def _attributes(letter: DeadLetter) -> dict[str, str]:
    """Write the event's attributes as they were; those of one that was refused were never looked at."""
    event = letter.event
    said = {
        **{f"ce-{name}": value for name, value in (event.get("extensions") or {}).items()},
        "ce-specversion": "1.0",
        "ce-type": event.get("type") or EVENT_TYPE,
        "ce-source": event.get("source") or f"/consumers/{letter.consumer}",
        "ce-time": event.get("time") or rfc3339(datetime.now(UTC)),
        "ce-subject": event.get("subject"),
        "ce-id": event.get("published_id"),
        "content-type": event.get("content_type") or JSON_TYPE,
        "traceparent": parse_traceparent(str(event.get("traceparent") or "")),
        "Nats-Msg-Id": f"redrive-{letter.made_at}-{letter.sequence}",
    }
    return {name: encoded(str(value)) for name, value in said.items() if value}


def _data(letter: DeadLetter) -> bytes:
    event = letter.event
    return dump(event["data"]) if "data" in event else base64.b64decode(event["data_base64"])


def _check(channel: Channel, data: bytes, *, as_is: bool) -> None:
    """Look at an event again. Raises ValidationError where it is not JSON, or the channel's schema refuses it still."""
    try:
        value = parse(data)
    except Refused:
        raise ValidationError("Its payload is not JSON; discard it, or publish a mended event.") from None
    try:
        if not as_is:
            _require_valid(channel, value)
    except Refused as refused:
        at = refused.members.get("pointer") or "/"
        raise ValidationError(
            f"The channel's schema refuses it still, at {at}: {refused.detail} Mend that, or put it back as it is."
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
        return DeadLetter(
            made_at=made_at,
            sequence=sequence,
            **texts | {"address": texts["address"] or texts["channel"]},
            attempts=int(document.get("attempts") or 1),
            event=_event(document["event"]),
            dead_at=_instant(document.get("dead_at")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        logger.exception("dead letter %d could not be read", sequence)
        return None


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Give the event as a database can hold it: data that no column takes is kept as bytes."""
    found = dict(event)
    try:
        require_plain(found)
    except (TypeError, ValueError):
        found["data_base64"] = base64.b64encode(dump(found.pop("data"))).decode()
        require_plain(found)
    return found


def _text(value: Any, most: int) -> str:
    return str(value).replace("\x00", "\ufffd")[:most]


def _instant(text: Any) -> datetime:
    try:
        found = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    return found if found is not None and found.tzinfo is not None else datetime.now(UTC)
