"""State changes of a job: accept, claim, run and cancel."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from audit.storable import require_plain
from jobs import registry
from jobs.models import ATTEMPTS_MAX, FINAL, Job, State

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0


class Superseded(Exception):
    """The job is no longer this worker's: it was cancelled, or claimed by another worker."""


def results() -> FileSystemStorage:
    """Return the storage of results, with a folder for each job."""
    return FileSystemStorage(location=Path(settings.DATA_DIR) / "results")


def accept(document: Mapping[str, Any]) -> Job | None:
    """Create the row of a job that the data plane has accepted, and return it; None if it exists already.

    A job whose input the database cannot store is created as failed, and None is returned, too.
    """
    row = {
        "type": document["type"],
        "consumer": document["consumer"],
        "key": document["key"],
        "maker": document.get("maker", ""),
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
        problem = _problem(f"The input cannot be stored: {error}", title="Invalid input", status=422)
        row |= {"input": {}, "state": State.FAILED, "error": problem, "ended_at": now}
        row["version"] = 2  # newer than the document that the data plane has
    job, is_new = Job.objects.get_or_create(id=document["id"], defaults=row)
    return job if is_new and not job.is_final else None


def claim(job_id: str) -> Job | None:
    """Claim a job for this worker and return it; None if it has ended or another worker has it."""
    now = timezone.now()
    claim_id = uuid.uuid4().hex
    updated = (
        Job.objects.claimable(now)
        .filter(id=job_id)
        .update(
            state=State.RUNNING,
            claim=claim_id,
            heartbeat_at=now,
            started_at=now,
            attempts=F("attempts") + 1,
            version=F("version") + 1,
        )
    )
    return Job.objects.get(id=job_id) if updated else None


def run(job_id: str) -> None:
    """Claim a job and run it. An exception becomes the error of the job, and is never raised."""
    job = claim(job_id)
    if job is None:
        return
    if job.attempts > ATTEMPTS_MAX:
        _end(job, State.FAILED, error=_problem(f"Given up after {ATTEMPTS_MAX} attempts: its worker died each time."))
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
            _end(job, State.FAILED, error=_problem("The job failed; the error was logged."))


def cancel(job_id: str) -> None:
    """Cancel a job that has not ended; its worker stops when it reports progress next."""
    now = timezone.now()
    Job.objects.filter(id=job_id).exclude(state__in=FINAL).update(
        state=State.CANCELLED, ended_at=now, version=F("version") + 1
    )


def _run(job: Job) -> None:
    type_ = registry.find(job.type)
    if type_ is None:
        raise registry.InvalidInput(f"The job type `{job.type}` no longer exists.")

    def progress(share: float, message: str = "") -> None:
        _update(job, progress=min(max(share, 0.0), 1.0), message=message[:500], heartbeat_at=timezone.now())

    produced = type_.run(registry.Task(job.id, job.consumer, job.input, progress))
    if produced.file is not None:
        store = results()
        name = store.save(f"{job.id}/{produced.file_name}", produced.file)
        file = {"file_name": Path(name).name, "file_type": produced.file_type, "file_bytes": store.size(name)}
        _end(job, State.COMPLETED, progress=1.0, message="", **file)
    else:
        _end(job, State.COMPLETED, progress=1.0, message="", result=produced.result)


def _update(job: Job, **changes: Any) -> None:
    """Change the row of a job that this worker has. Raises Superseded if it no longer has it."""
    claimed = Job.objects.filter(id=job.id, claim=job.claim, state=State.RUNNING)
    if not claimed.update(**changes, version=F("version") + 1):
        raise Superseded(job.id)


def _end(job: Job, state: State, **changes: Any) -> None:
    now = timezone.now()
    with transaction.atomic():
        _update(job, state=state, ended_at=now, **changes)


def _problem(detail: str, *, title: str = "Job failed", status: int = 500) -> dict[str, Any]:
    return {"type": "/docs/refusals#internal" if status == 500 else "/docs/refusals#invalid-payload",
            "title": title, "status": status, "detail": detail}  # fmt: skip


class _Heartbeat(threading.Thread):
    """Updates the heartbeat of a job while it runs, so that a function need not report progress to keep it."""

    def __init__(self, job: Job) -> None:
        super().__init__(name=f"heartbeat {job.id}", daemon=True)
        self._job = job
        self._ended = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Update the heartbeat until the job has ended."""
        try:
            while not self._ended.wait(HEARTBEAT_S):
                Job.objects.filter(id=self._job.id, claim=self._job.claim).update(heartbeat_at=timezone.now())
        finally:
            connection.close()
