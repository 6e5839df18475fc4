"""Jobs that no worker has: those whose task was lost on its way, and those whose worker has died."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Q

from gateway.concurrency.clock_jumps import ClockJumps
from jobs.models import Job, State

REQUEUE_AFTER = timedelta(seconds=2)
"""How long a task may take to reach a worker before it counts as lost."""
REQUEUE_INTERVAL_S = 30.0
"""The least interval between two tasks of one job, which may wait because all workers are busy."""
FOUND_MAX = 1000


class LostJobs:
    """Finds lost jobs and queues them again, as one process of the sweeper does."""

    def __init__(self) -> None:
        self._jumps = ClockJumps()
        self._queued_at: dict[str, float] = {}
        """When this process last queued a job, by the monotonic clock."""

    def find(self, now: datetime) -> list[str]:
        """Return the ids of lost jobs.

        After a jump of the wall clock the heartbeat of every running job is restarted: a job must not run twice at
        once.
        """
        if self._jumps.jumped_s():
            Job.objects.filter(state=State.RUNNING).update(heartbeat_at=now)
        is_new = Q(submitted_at__gte=now - REQUEUE_AFTER, submitted_at__lte=now + REQUEUE_AFTER)
        lost = Job.objects.claimable(now).exclude(is_new)
        return list(lost.values_list("id", flat=True)[:FOUND_MAX])

    def requeue(self, now: datetime, queue: Callable[[str], object]) -> None:
        """Queue lost jobs again. Raises what ``queue`` raises; the remaining jobs are queued by the next call."""
        lost = self.find(now)
        for job_id in self._queued_at.keys() - set(lost):
            del self._queued_at[job_id]
        for job_id in lost:
            queued_at = self._queued_at.get(job_id)
            if queued_at is None or time.monotonic() - queued_at >= REQUEUE_INTERVAL_S:
                queue(job_id)
                self._queued_at[job_id] = time.monotonic()
