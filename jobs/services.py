"""Every change of a job: accepted, claimed, moved on, ended, cancelled, cleaned away."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from audit.storable import require_plain
from gateway.concurrency.clock_jumps import ClockJumps
from jobs import registry
from jobs.models import ATTEMPTS_MAX, FINAL, Job, State

logger = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=7)
HEARTBEAT_S = 5.0
REQUEUE_AFTER = timedelta(seconds=2)
"""So long a job may be on its way to a worker before it is taken for lost on it."""
TELL_AGAIN_S = 30.0
"""A job that waits because all workers are busy is not queued more often."""
_jumps = ClockJumps()
_told_at: dict[str, float] = {}
"""When this process last queued a job again, on the monotonic clock."""


class Superseded(Exception):
    """The row has moved on without this worker: cancelled, or claimed by another."""


def results() -> FileSystemStorage:
    """Give the place where results lie, one folder a job."""
    return FileSystemStorage(location=Path(settings.DATA_DIR) / "results")


def accept(document: Mapping[str, Any]) -> Job | None:
    """Make the row of a job that the data plane has accepted; None where there is one already.

    A job whose input no table can hold has failed from the start, and None is given too: it must not hold up others.
    """
    row = {
        "type": document["type"],
        "consumer": document["consumer"],
        "key": document["key"],
        "input": document["input"],
        "body_hash": document["body_hash"],
        "submitted_at": datetime.fromtimestamp(document["submitted_at"], tz=UTC),
        "traceparent": document.get("traceparent") or "",
        "places": document.get("places") or [],
        "published_version": 1,
    }
    try:
        require_plain(document["input"])
    except (TypeError, ValueError) as error:
        now = timezone.now()
        problem = _problem(f"The input cannot be kept: {error}", title="Invalid input", status=422)
        row |= {"input": {}, "state": State.FAILED, "error": problem, "ended_at": now, "expires_at": now + KEPT_FOR}
        row["version"] = 2  # of which the data plane has not heard
    job, is_new = Job.objects.get_or_create(id=document["id"], defaults=row)
    return job if is_new and not job.is_final else None


def claim(job_id: str) -> Job | None:
    """Take a job for this worker alone; None where it is not to be had."""
    now = timezone.now()
    mark = uuid.uuid4().hex
    taken = (
        Job.objects.claimable(now)
        .filter(id=job_id)
        .update(
            state=State.RUNNING,
            claim=mark,
            heartbeat_at=now,
            started_at=now,
            attempts=F("attempts") + 1,
            version=F("version") + 1,
        )
    )
    return Job.objects.get(id=job_id) if taken else None


def run(job_id: str) -> None:
    """Claim a job and run it to its end. What it raises becomes the job's error, never the worker's."""
    job = claim(job_id)
    if job is None:
        return
    if job.attempts > ATTEMPTS_MAX:
        _end(
            job, State.FAILED, error=_problem(f"Given up after {ATTEMPTS_MAX} attempts: the worker was lost each time.")
        )
        return
    with _Heartbeat(job):
        try:
            _run(job)
        except (Superseded, registry.Cancelled):
            logger.info("job %s stopped: cancelled or taken over", job.id)
        except registry.InvalidInput as error:
            _end(job, State.FAILED, error=_problem(str(error), title="Invalid input", status=422))
        except Exception:
            trace = {"traceparent": job.traceparent}
            logger.exception("job %s of type %s failed", job.id, job.type, extra=trace)
            _end(job, State.FAILED, error=_problem("The job failed; the fault was logged."))


def cancel(job_id: str) -> None:
    """Cancel a job that has not ended; its worker stops at its next report of progress."""
    now = timezone.now()
    Job.objects.filter(id=job_id).exclude(state__in=FINAL).update(
        state=State.CANCELLED, ended_at=now, expires_at=now + KEPT_FOR, version=F("version") + 1
    )


def lost(now: datetime) -> list[str]:
    """Give the jobs that no worker has: queued a while ago, or under a worker that has gone silent.

    Where the clock was set, each running job's worker is given time anew: a job must never run twice at once.
    """
    if _jumps.jumped_s():
        Job.objects.filter(state=State.RUNNING).update(heartbeat_at=now)
    is_new = Q(submitted_at__gte=now - REQUEUE_AFTER, submitted_at__lte=now + REQUEUE_AFTER)
    waiting = Job.objects.claimable(now).exclude(is_new)
    return list(waiting.values_list("id", flat=True)[:1000])


def requeue(now: datetime, tell: Callable[[str], object]) -> None:
    """Tell the workers again of jobs that none of them has. Raises what telling does; the rest is told next time."""
    waiting = lost(now)
    for forgotten in _told_at.keys() - set(waiting):
        del _told_at[forgotten]
    for job_id in waiting:
        told_at = _told_at.get(job_id)
        if told_at is None or time.monotonic() - told_at >= TELL_AGAIN_S:
            tell(job_id)
            _told_at[job_id] = time.monotonic()


def clean(now: datetime) -> int:
    """Delete jobs that need not be kept any longer, with their results. Says how many."""
    gone = list(Job.objects.expired(now)[:1000])
    store = results()
    for job in gone:
        if job.file_name:
            store.delete(f"{job.id}/{job.file_name}")
        job.delete()
    return len(gone)


def _run(job: Job) -> None:
    type_ = registry.find(job.type)
    if type_ is None:
        raise registry.InvalidInput(f"There is no job type `{job.type}` any more.")

    def progress(share: float, message: str = "") -> None:
        _move(job, progress=min(max(share, 0.0), 1.0), message=message[:500], heartbeat_at=timezone.now())

    produced = type_.run(registry.Task(job.id, job.consumer, job.input, progress))
    if produced.file is not None:
        name = results().save(f"{job.id}/{produced.file_name}", produced.file)
        _end(job, State.COMPLETED, progress=1.0, message="", file_name=Path(name).name, file_type=produced.file_type)
    else:
        _end(job, State.COMPLETED, progress=1.0, message="", result=produced.result)


def _move(job: Job, **changes: Any) -> None:
    """Change the row while it is this worker's. Raises Superseded where it is not."""
    held = Job.objects.filter(id=job.id, claim=job.claim, state=State.RUNNING)
    if not held.update(**changes, version=F("version") + 1):
        raise Superseded(job.id)


def _end(job: Job, state: State, **changes: Any) -> None:
    now = timezone.now()
    with transaction.atomic():
        _move(job, state=state, ended_at=now, expires_at=now + KEPT_FOR, **changes)


def _problem(detail: str, *, title: str = "Job failed", status: int = 500) -> dict[str, Any]:
    return {"type": "/docs/refusals#internal" if status == 500 else "/docs/refusals#invalid-payload",
            "title": title, "status": status, "detail": detail}  # fmt: skip


class _Heartbeat(threading.Thread):
    """Tells the row every few seconds that its worker lives; a function busy for minutes need not report itself."""

    def __init__(self, job: Job) -> None:
        super().__init__(name=f"heartbeat {job.id}", daemon=True)
        self._job = job
        self._over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Beat until the job is over."""
        try:
            while not self._over.wait(HEARTBEAT_S):
                Job.objects.filter(id=self._job.id, claim=self._job.claim).update(heartbeat_at=timezone.now())
        finally:
            connection.close()
