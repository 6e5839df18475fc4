"""Celery tasks of the project; each calls a function."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from apimgmt import retention

WITHIN_S = 30.0
"""The next run continues where one has stopped."""


@shared_task(name="apimgmt.keep_bounds")
def keep_bounds() -> None:
    """Keep to the bounds of everything that is kept."""
    retention.keep_bounds(timezone.now(), within_s=WITHIN_S)
