"""What becomes of dead letters: kept once, put back on their channel, or forgotten."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.dateparse import parse_datetime

from audit import bus, recording
from audit.storable import require_plain
from events.models import Channel, DeadLetter, DeadLetterPosition
from gateway import tracing
from gateway.event import EVENT_TYPE, JSON_TYPE, encoded, rfc3339
from gateway.subjects import AddressError, subject_of

logger = logging.getLogger(__name__)

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


def redrive(letter: DeadLetter, *, by: str) -> None:
    """Put a dead letter's event back on its channel and forget the letter.

    An operator's decision stands above the schema: the event is stored as it is. Raises ValidationError where that
    cannot be done, and bus.Away when NATS does not answer; the letter is then kept.
    """
    if "data" not in letter.event:
        raise ValidationError("Its payload is not JSON; discard it, or publish a mended event.")
    if not Channel.objects.filter(address=letter.channel).exists():
        raise ValidationError({"channel": "There is no such channel any more."})
    try:
        subject = subject_of(letter.address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None
    headers = {
        "ce-specversion": "1.0",
        "ce-type": EVENT_TYPE,
        "ce-source": encoded(f"/consumers/{letter.consumer}"),
        "ce-time": rfc3339(datetime.now(UTC)),
        "content-type": JSON_TYPE,
        **_context(letter.event),
        # Stored before the letter is forgotten: a fault between the two keeps the letter, and the next try stores
        # nothing twice.
        "Nats-Msg-Id": f"redrive-{letter.made_at}-{letter.sequence}",
    }
    bus.store(subject, orjson.dumps(letter.event["data"]), headers)
    recording.delete("dead-letter", letter, str(letter.pk), note="redriven", by=by)


def discard(letter: DeadLetter, *, by: str) -> None:
    """Forget a dead letter. Raises ValidationError where somebody else has."""
    recording.delete("dead-letter", letter, str(letter.pk), note="discarded", by=by)


def _context(event: Mapping[str, Any]) -> dict[str, str]:
    """Give the headers of the trace that the event was part of."""
    traceparent = event.get("traceparent")
    return {"traceparent": traceparent} if isinstance(traceparent, str) and tracing.taken(traceparent) else {}


def _letter(sequence: int, data: bytes, made_at: str) -> DeadLetter | None:
    try:
        document = orjson.loads(data)
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
    """Give the event as a database can hold it: what no column takes is kept as bytes."""
    try:
        require_plain(event)
    except (TypeError, ValueError):
        return {"data_base64": base64.b64encode(orjson.dumps(event["data"])).decode()}
    return dict(event)


def _text(value: Any, most: int) -> str:
    return str(value).replace("\x00", "\ufffd")[:most]


def _instant(text: Any) -> datetime:
    try:
        found = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    return found if found is not None and found.tzinfo is not None else datetime.now(UTC)
