"""Celery tasks; each calls a service."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from jobs import services
from jobs.lost import LostJobs

_lost_jobs = LostJobs()


@shared_task(name="jobs.run")
def run(job_id: str) -> None:
    """Run one job."""
    services.run(job_id)


@shared_task(name="jobs.sweep")
def sweep() -> None:
    """Queue lost jobs again."""
    _lost_jobs.requeue(timezone.now(), run.delay)
