"""DeadLetterJob: one operator's request to redrive or discard many dead letters, and its progress."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from django.db import models

from audit.configured import Represented
from audit.ordered_json import OrderedJSONField

STALE_AFTER = timedelta(seconds=20)
"""After this time without a heartbeat, another worker may claim a running job."""


class LetterAction(models.TextChoices):
    """What a job does with its dead letters."""

    REDRIVE = "redrive"
    DISCARD = "discard"


class LetterJobState(models.TextChoices):
    """The state of a job of dead letters. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeadLetterJobQuerySet(models.QuerySet["DeadLetterJob"]):
    """Queries of jobs of dead letters."""

    def unended(self) -> Self:
        """Return the jobs that are queued or running."""
        return self.filter(state__in=(LetterJobState.QUEUED, LetterJobState.RUNNING))

    def claimable(self, now: datetime) -> Self:
        """Return the jobs that a worker may claim: queued, or running without a heartbeat near to now."""
        is_silent = ~models.Q(heartbeat_at__range=(now - STALE_AFTER, now + STALE_AFTER))
        return self.filter(models.Q(state=LetterJobState.QUEUED) | models.Q(is_silent, state=LetterJobState.RUNNING))


class DeadLetterJob(Represented):
    """The redriving or discarding of many dead letters, requested at once by one operator."""

    id = models.CharField(max_length=40, primary_key=True)
    action = models.CharField(max_length=10, choices=LetterAction)
    selection = OrderedJSONField(default=dict)
    """The filters that select its letters, or their ``ids``; empty for all."""
    as_is = models.BooleanField(default=False)
    last_id = models.BigIntegerField(default=0)
    """The last letter that was selected; those that arrived later are not a part of it."""
    position = models.BigIntegerField(default=0)
    """The last letter that was settled."""
    state = models.CharField(max_length=10, choices=LetterJobState, default=LetterJobState.QUEUED, db_index=True)
    detail = models.CharField(max_length=300, blank=True)
    """Why it failed or was cancelled."""
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    refused = OrderedJSONField(default=list)
    """The first letters that could not be redriven: ``id`` and ``detail``."""
    claim = models.CharField(max_length=40, blank=True)
    """Names the worker that has it."""
    heartbeat_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_index=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True, db_index=True)

    identity = "id"
    represented = (
        "id", "action", "selection", "as_is", "state", "detail", "total", "done", "failed", "refused", "created_by",
        "created_at", "started_at", "ended_at",
    )  # fmt: skip

    objects = DeadLetterJobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "id")

    def __str__(self) -> str:
        return f"{self.action} {self.id}"

    @property
    def is_final(self) -> bool:
        """Return whether the state is final."""
        return self.state not in (LetterJobState.QUEUED, LetterJobState.RUNNING)
