"""Redrive or discard many dead letters as one job: requested once, recorded once, run by a worker, with progress."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, Max, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from audit import bus
from audit.services import record
from events import letters
from events.letter_job_models import DeadLetterJob, LetterAction, LetterJobState
from events.models import DeadLetter

logger = logging.getLogger(__name__)

RUN_TASK = "events.run_letter_job"
AUDIT_KIND = "dead-letters"
AT_ONCE = 100
"""How many letters are settled in one transaction."""
OPEN_MAX = 20
REFUSED_MAX = 100
"""How many letters that could not be redriven are named with the reason; the others are counted."""
IDS_MAX = 10_000
KEPT_FOR = timedelta(days=30)
QUEUED_FOR_S = 10
"""How long a task waits for a worker. The sweeper queues the job again, as long as no worker has it."""
HEARTBEAT = timedelta(seconds=2)
CLEANED_MAX = 1000
WORDS: Mapping[str, str] = {LetterAction.REDRIVE: "Redrive", LetterAction.DISCARD: "Discard"}


class Superseded(Exception):
    """The job is no longer this worker's: it was cancelled, or another worker has claimed it."""


def select(selection: Mapping[str, Any], last_id: int | None = None) -> QuerySet[DeadLetter]:
    """Return the letters of a selection, up to an id: those with these ids, or those that equal every other value."""
    rows = DeadLetter.objects.all() if last_id is None else DeadLetter.objects.filter(id__lte=last_id)
    ids = selection.get("ids")
    if ids is not None:
        return rows.filter(id__in=ids)
    return rows.filter(**selection)


def preview(selection: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job with this selection would settle: the count, the last id, and the count of each channel."""
    rows = select(selection)
    by_channel = rows.order_by().values("channel").annotate(count=Count("id")).order_by("-count", "channel")
    found = rows.aggregate(total=Count("id"), last_id=Max("id"))
    return {"total": found["total"], "last_id": found["last_id"] or 0, "channels": list(by_channel)}


def start_job(
    *, action: str, selection: Mapping[str, Any], as_is: bool = False, last_id: int | None = None, by: str
) -> DeadLetterJob:
    """Create a job for the letters that are selected now, up to ``last_id``, and queue it. Raises ValidationError.

    The audit log has this one record of it. Letters that arrive later are not a part of it.
    """
    ids = selection.get("ids")
    if ids is not None and not 0 < len(ids) <= IDS_MAX:
        raise ValidationError(f"Select 1 to {IDS_MAX:,} dead letters.")
    with transaction.atomic():
        if DeadLetterJob.objects.unended().count() >= OPEN_MAX:
            raise ValidationError(f"At most {OPEN_MAX} jobs may be queued or running; wait until one has ended.")
        found = select(selection, last_id).aggregate(total=Count("id"), last_id=Max("id"))
        job = DeadLetterJob.objects.create(
            id=f"dlj_{secrets.token_hex(12)}",
            action=LetterAction(action),
            selection=dict(selection),
            as_is=as_is,
            last_id=found["last_id"] or 0,
            total=found["total"],
            created_by=by,
            created_at=timezone.now(),
        )
        summary = {"action": job.action, "selection": job.selection, "as_is": as_is, "total": job.total}
        note = f"{job.action} of {job.total} dead letters"
        # As a deletion, so that the configuration as of an instant does not contain the job.
        record(AUDIT_KIND, job.id, before=summary | {"last_id": job.last_id}, after=None, note=note, by=by)
        transaction.on_commit(lambda: queue(job.id))
    return job


def queue(job_id: str) -> None:
    """Hand a job to a worker. While the task queue is unavailable, the job waits for the sweeper."""
    try:
        current_app.send_task(RUN_TASK, [job_id], expires=QUEUED_FOR_S)
    except OperationalError:
        logger.warning("dead letter job %s waits: the task queue is unavailable", job_id)


def cancel_job(job: DeadLetterJob, *, by: str) -> None:
    """Cancel a job that has not ended; letters that are settled already stay so."""
    rows = DeadLetterJob.objects.unended().filter(id=job.id)
    rows.update(state=LetterJobState.CANCELLED, ended_at=timezone.now(), detail=f"Cancelled by {by}."[:300])


def run(job_id: str) -> None:
    """Claim a job and settle its letters. A fault ends the job as failed, and is never raised.

    A job whose worker has died is claimed by another one, which continues after the last letter that was settled.
    """
    job = _claim(job_id)
    if job is None:
        return
    try:
        while (batch := _next(job)) is not None:
            _settle(job, batch)
        _end(job, LetterJobState.COMPLETED)
    except Superseded:
        logger.info("dead letter job %s stopped: cancelled, or claimed by another worker", job.id)
    except bus.Unavailable:
        _end(job, LetterJobState.FAILED, "The event log does not answer; the letters that are left are kept.")
    except Exception:
        logger.exception("dead letter job %s failed", job.id)
        _end(job, LetterJobState.FAILED, "The job failed; the error was logged. The letters that are left are kept.")


def sweep(now: datetime) -> None:
    """Queue the jobs that no worker has, and delete those that ended long ago."""
    for job in DeadLetterJob.objects.claimable(now).exclude(created_at__gt=now - timedelta(seconds=QUEUED_FOR_S)):
        queue(job.id)
    old = DeadLetterJob.objects.filter(ended_at__lt=now - KEPT_FOR).values("id")[:CLEANED_MAX]
    DeadLetterJob.objects.filter(id__in=old).delete()


def _claim(job_id: str) -> DeadLetterJob | None:
    now = timezone.now()
    job = DeadLetterJob.objects.claimable(now).filter(id=job_id).first()
    if job is None:
        return None
    changes = {"claim": secrets.token_hex(8), "heartbeat_at": now, "started_at": job.started_at or now}
    unchanged = DeadLetterJob.objects.claimable(now).filter(id=job_id, claim=job.claim)
    if not unchanged.update(state=LetterJobState.RUNNING, **changes):
        return None
    job.refresh_from_db()
    return job


def _next(job: DeadLetterJob) -> list[DeadLetter] | None:
    rows = select(job.selection, job.last_id).filter(id__gt=job.position).order_by("id")
    if job.action == LetterAction.DISCARD:
        rows = rows.defer("event")
    return list(rows[:AT_ONCE]) or None


def _settle(job: DeadLetterJob, batch: list[DeadLetter]) -> None:
    """Settle some letters and record the progress, both or neither. Raises Superseded.

    A batch whose events are stored is settled even if the job was cancelled meanwhile.
    """
    done, refused = batch, list[tuple[DeadLetter, str]]()
    if job.action == LetterAction.REDRIVE:
        done, refused = letters.store_all(_beating(job, batch), as_is=job.as_is)
    shown = [{"id": letter.pk, "detail": why} for letter, why in refused][: REFUSED_MAX - len(job.refused)]
    with transaction.atomic():
        deleted, _ = DeadLetter.objects.filter(id__in=[letter.pk for letter in done]).delete()
        _update(
            job,
            done=F("done") + deleted,
            failed=F("failed") + len(refused),
            refused=[*job.refused, *shown],
            position=batch[-1].pk,
        )
    _require_running(job)


def _beating(job: DeadLetterJob, batch: list[DeadLetter]) -> Iterator[DeadLetter]:
    """Yield the letters, and keep the claim meanwhile: checking one against its schema may take a second."""
    for letter in batch:
        if job.heartbeat_at is None or timezone.now() - job.heartbeat_at > HEARTBEAT:
            _update(job)
            _require_running(job)
        yield letter


def _update(job: DeadLetterJob, **changes: Any) -> None:
    """Change the row of a job that this worker has. Raises Superseded if another one has it."""
    held = DeadLetterJob.objects.filter(id=job.id, claim=job.claim)
    if not held.update(heartbeat_at=timezone.now(), **changes):
        raise Superseded(job.id)
    job.refresh_from_db()


def _require_running(job: DeadLetterJob) -> None:
    """Raise Superseded if the job was cancelled."""
    if job.state != LetterJobState.RUNNING:
        raise Superseded(job.id)


def _end(job: DeadLetterJob, state: LetterJobState, detail: str = "") -> None:
    held = DeadLetterJob.objects.filter(id=job.id, claim=job.claim, state=LetterJobState.RUNNING)
    held.update(state=state, ended_at=timezone.now(), detail=detail)
