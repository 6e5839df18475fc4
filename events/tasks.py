"""Celery tasks; each calls a service."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from events import letter_jobs


@shared_task(name=letter_jobs.RUN_TASK)
def run(job_id: str) -> None:
    """Run one job of dead letters."""
    letter_jobs.run(job_id)


@shared_task(name="events.sweep_letter_jobs")
def sweep() -> None:
    """Queue lost jobs of dead letters again, and delete old ones."""
    letter_jobs.sweep(timezone.now())
