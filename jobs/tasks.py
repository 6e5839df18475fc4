"""Celery's way in: each task calls a service."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from jobs import services


@shared_task(name="jobs.run")
def run(job_id: str) -> None:
    """Run one job."""
    services.run(job_id)


@shared_task(name="jobs.sweep")
def sweep() -> None:
    """Queue again what no worker has."""
    services.requeue(timezone.now(), run.delay)


@shared_task(name="jobs.clean")
def clean() -> None:
    """Delete what need not be kept any longer."""
    services.clean(timezone.now())
