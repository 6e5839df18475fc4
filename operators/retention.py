"""Deletes sessions that have ended, and old entries of the admin's own log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session

from operators.batches import delete_in_batches


def keep_sessions(now: datetime) -> Iterator[int]:
    """Delete the sessions that have ended, and yield the number of each batch."""
    yield from delete_in_batches(Session.objects.filter(expire_date__lt=now).order_by("expire_date"))


def keep_admin_log(now: datetime) -> Iterator[int]:
    """Delete old entries of the admin's own log, and yield the number of each batch."""
    days = settings.RETENTION.admin_log_days
    if days:
        old = LogEntry.objects.filter(action_time__lt=now - timedelta(days=days))
        yield from delete_in_batches(old.order_by("action_time"))
