"""The bounds of dead letters: their age, and the number and bytes of each channel's. The oldest go first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Sum

from events.models import DeadLetter, DeadLetterPosition
from gateway.concurrency.log_throttle import LogThrottle
from operators.batches import BATCH, REMOVED, delete_in_batches

logger = logging.getLogger(__name__)

WHAT = "dead letters"
POSITIONS_MAX = 100
"""Streams whose position is remembered: a restored copy of an earlier stream is not read again."""
_throttle = LogThrottle(60.0)


def trim(channels: Iterable[str]) -> int:
    """Delete the oldest letters of channels that have too many; return how many. Called in a transaction.

    It runs wherever letters are recorded, as a flood of them must not outrun a periodic task.
    """
    deleted = 0
    for channel in set(channels):
        count = _trim(channel)
        if count and (suffix := _throttle.suffix(channel)) is not None:
            logger.warning("dead letters: too many on %s, so the oldest %d are deleted%s", channel, count, suffix)
        deleted += count
    REMOVED.labels(WHAT).inc(deleted)
    return deleted


def keep_bounds(now: datetime) -> Iterator[int]:
    """Delete letters that are too old, or too many, and yield the number of each batch."""
    days = settings.RETENTION.dead_letters_days
    if days:
        yield from delete_in_batches(DeadLetter.objects.filter(dead_at__lt=now - timedelta(days=days)).order_by("id"))
    for channel in DeadLetter.objects.order_by("channel").values_list("channel", flat=True).distinct():
        while True:
            with transaction.atomic():
                deleted = _trim(channel)
            if not deleted:
                break
            yield deleted
    newest = DeadLetterPosition.objects.order_by("-made_at").values_list("pk", flat=True)[:POSITIONS_MAX]
    DeadLetterPosition.objects.exclude(pk__in=list(newest)).delete()


def _trim(channel: str) -> int:
    keys = _beyond(channel)
    if keys:
        DeadLetter.objects.filter(pk__in=keys).delete()
    return len(keys)


def _beyond(channel: str) -> list[int]:
    """Return the oldest letters of a channel that are more than it may keep, at most ``BATCH``."""
    letters, most = DeadLetter.objects.on(channel), settings.RETENTION
    total = letters.aggregate(rows=Count("id"), size=Sum("event_bytes", default=0))
    rows = total["rows"] - most.dead_letters_rows if most.dead_letters_rows else 0
    size = total["size"] - most.dead_letters_bytes if most.dead_letters_bytes else 0
    keys: list[int] = []
    if rows > 0 or size > 0:
        for key, event_bytes in letters.order_by("id").values_list("id", "event_bytes")[:BATCH]:
            if rows <= 0 and size <= 0:
                break
            keys.append(key)
            rows, size = rows - 1, size - event_bytes
    return keys
