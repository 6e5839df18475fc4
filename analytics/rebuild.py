"""Rebuilds the tables of analytics from the usage stream."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction

from analytics.models import ConnectionRecord, GatewayProcess, LimitMinute, ProjectorPosition, UsageMinute
from analytics.projector import replay


def rebuild() -> int:
    """Replay the usage stream into empty tables.

    Returns the number of batches replayed; a projector that runs meanwhile may project some of them.
    """
    with transaction.atomic():
        # The position first: its lock keeps running projectors out.
        for model in (ProjectorPosition, UsageMinute, LimitMinute, ConnectionRecord, GatewayProcess):
            model._default_manager.all().delete()
    return async_to_sync(replay)(settings.NATS_URL)
