"""Job: a unit of work that was accepted with 202, and whose state clients poll."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Self

from django.db import models

from audit.ordered_json import OrderedJSONField

STALE_AFTER = timedelta(seconds=20)
"""After this time without a heartbeat, another worker may claim a running job."""
ATTEMPTS_MAX = 3


class State(models.TextChoices):
    """The state of a job. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = (State.COMPLETED, State.FAILED, State.CANCELLED)


class JobQuerySet(models.QuerySet["Job"]):
    """Queries of jobs."""

    def unpublished(self) -> Self:
        """Return jobs whose document in NATS is older than the row."""
        return self.filter(version__gt=models.F("published_version")).order_by("submitted_at")

    def claimable(self, now: datetime) -> Self:
        """Return jobs that a worker may claim: queued, or running without a heartbeat from their worker.

        A heartbeat in the future was written before the clock was set back, and counts as none.
        """
        is_silent = models.Q(heartbeat_at__lt=now - STALE_AFTER) | models.Q(heartbeat_at__gt=now + STALE_AFTER)
        return self.filter(models.Q(state=State.QUEUED) | models.Q(is_silent, state=State.RUNNING))

    def ended(self) -> Self:
        """Return jobs that have ended, and whose end clients can see."""
        return self.filter(state__in=FINAL, version__lte=models.F("published_version"))


class Job(models.Model):
    """A unit of work. Clients poll its document; ``version`` increases with each change of it."""

    id = models.CharField(max_length=40, primary_key=True)
    type = models.CharField(max_length=100, db_index=True)
    consumer = models.CharField(max_length=100, db_index=True)
    key = models.CharField(max_length=120)
    maker = models.CharField(max_length=160, blank=True)
    """The credential that submitted it, which may use it without a right to all jobs of the type."""
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED, db_index=True)
    progress = models.FloatField(default=0)
    message = models.CharField(max_length=500, blank=True)
    input = OrderedJSONField()
    body_hash = models.CharField(max_length=64)
    result = OrderedJSONField(null=True)
    file_name = models.CharField(max_length=200, blank=True)
    file_type = models.CharField(max_length=100, blank=True)
    file_bytes = models.BigIntegerField(default=0)
    error = OrderedJSONField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    claim = models.CharField(max_length=40, blank=True)
    heartbeat_at = models.DateTimeField(null=True)
    submitted_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True, db_index=True)
    traceparent = models.CharField(max_length=64, blank=True)
    places = OrderedJSONField(default=list)
    """Keys of the limit store under which the data plane counts the job as open."""
    version = models.PositiveIntegerField(default=1)
    published_version = models.PositiveIntegerField(default=0)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-submitted_at",)

    def __str__(self) -> str:
        return f"{self.type} {self.id}"

    @property
    def is_final(self) -> bool:
        """Return whether the state is final."""
        return self.state in FINAL

    def document(self) -> dict[str, Any]:
        """Return the document that the data plane serves to clients (docs/architecture.md)."""
        return {
            "id": self.id,
            "type": self.type,
            "consumer": self.consumer,
            "key": self.key,
            "maker": self.maker,
            "state": self.state,
            "progress": self.progress,
            "message": self.message,
            "input": self.input,
            "body_hash": self.body_hash,
            "result": self.result,
            "file": {"name": self.file_name, "type": self.file_type} if self.file_name else None,
            "error": self.error,
            "submitted_at": self.submitted_at.timestamp(),
            "started_at": self.started_at.timestamp() if self.started_at else None,
            "ended_at": self.ended_at.timestamp() if self.ended_at else None,
            "traceparent": self.traceparent,
        }
