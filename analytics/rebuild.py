"""Rebuilds the tables of analytics from the usage stream.

The stream is shorter than the tables. Rows of days that it no longer has in full are kept as they are, so a rebuild
loses nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from nats.js.errors import NotFoundError

from analytics import retention, services
from analytics.coarsening import DAY_S, begin_of
from analytics.models import ConnectionRecord, GatewayProcess, LimitMinute, ProjectorPosition, UsageMinute
from analytics.projector import replay
from gateway.link.nats import USAGE_STREAM, USAGE_SUBJECT, connect, read_batch

LATE = timedelta(minutes=10)
"""The first batch of a stream may contain minutes that are so much older than itself."""


def rebuild() -> int:
    """Replay the usage stream into the tables, and return the number of batches replayed.

    A projector that runs meanwhile may project some of them.
    """
    begins_at = async_to_sync(_begin_of_stream)(settings.NATS_URL)
    if begins_at is None:
        return 0
    with transaction.atomic():
        # The position first: its lock keeps running projectors out.
        position = services.lock_position()
        _clear(position, begins_at)
    count = async_to_sync(replay)(settings.NATS_URL)
    for keep in (retention.keep_usage, retention.keep_limits, retention.keep_connections):
        for _ in keep(timezone.now()):
            pass
    return count


def _clear(position: ProjectorPosition, begins_at: datetime) -> None:
    """Delete what the stream restores, and note what is kept."""
    GatewayProcess.objects.all().delete()
    position.kept_before, position.kept_up_to = None, 0
    usage, limits, ledger = UsageMinute.objects.all(), LimitMinute.objects.all(), ConnectionRecord.objects.all()
    if UsageMinute.objects.filter(minute__lt=begins_at - LATE).exists():
        # A whole day, as rows may be of days already.
        first_day = begin_of(begins_at, DAY_S) + timedelta(days=1)
        position.kept_before, position.kept_up_to = first_day, position.sequence
        usage, limits = usage.filter(minute__gte=first_day), limits.filter(minute__gte=first_day)
        ledger = ledger.filter(opened_at__gte=begins_at)
    for rows in (usage, limits, ledger):
        rows.delete()
    position.sequence = 0
    position.save()


async def _begin_of_stream(nats_url: str) -> datetime | None:
    """Return the instant of the first batch in the stream; None if there is no batch."""
    client, js = await connect(nats_url, "rebuild analytics")
    try:
        first = (await js.stream_info(USAGE_STREAM)).state.first_seq
        messages = await read_batch(client, USAGE_STREAM, f"{USAGE_SUBJECT}.>", first, 1)
    except NotFoundError:
        return None
    finally:
        await client.close()
    return _instant_of(messages[0].data, (messages[0].headers or {})["Nats-Time-Stamp"]) if messages else None


def _instant_of(data: bytes, stored_at: str) -> datetime:
    """Return when a batch was sent; of a malformed one, when it was stored."""
    try:
        return datetime.fromtimestamp(orjson.loads(data)["at"], tz=UTC)
    except (ValueError, TypeError, KeyError, OverflowError):
        return datetime.fromisoformat(stored_at[:19]).replace(tzinfo=UTC)
