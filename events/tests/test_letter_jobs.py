"""Jobs of dead letters: what they settle, what they leave, and how they end."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from audit import bus
from audit.models import Change
from audit.services import configuration_as_of
from events import letter_jobs
from events.letter_job_models import STALE_AFTER, DeadLetterJob
from events.letter_jobs import AT_ONCE, OPEN_MAX, REFUSED_MAX, cancel_job, start_job, sweep
from events.models import DeadLetter
from events.services import create_channel
from operators.tests.api_cases import dead_letter

pytestmark = pytest.mark.django_db


@pytest.fixture
def stored(monkeypatch):
    """Return the events that are stored again."""
    found = []
    monkeypatch.setattr(bus, "store_all", found.extend)
    return found


@pytest.fixture
def queued(monkeypatch):
    found = []
    monkeypatch.setattr(letter_jobs, "queue", found.append)
    return found


def letters(count, **fields):
    return [dead_letter(sequence=number, **fields) for number in range(count)]


def discard(**selection):
    return start_job(action="discard", selection=selection, by="ann")


def run(job):
    letter_jobs.run(job.id)
    job.refresh_from_db()
    return job


def test_a_job_settles_many_batches_and_is_one_record():
    letters(AT_ONCE * 2 + 1)
    job = run(discard(channel="trades"))
    assert (job.state, job.done, job.total) == ("completed", AT_ONCE * 2 + 1, AT_ONCE * 2 + 1)
    (change,) = Change.objects.all()
    assert (change.kind, change.name, change.actor) == ("dead-letters", job.id, "ann")
    assert change.before["selection"] == {"channel": "trades"}
    assert change.note == f"discard of {job.total} dead letters"
    assert not configuration_as_of(timezone.now())


def test_a_job_touches_no_letter_that_arrived_after_it():
    letters(2)
    job = discard(channel="trades")
    late = dead_letter(sequence=9)
    assert run(job).done == 2
    assert DeadLetter.objects.get() == late


def test_a_job_goes_no_further_than_what_was_confirmed():
    first, second = letters(2)
    job = start_job(action="discard", selection={}, last_id=first.pk, by="ann")
    assert run(job).done == 1
    assert DeadLetter.objects.get() == second


def test_selected_letters_alone_are_settled(stored):
    create_channel(address="trades", by="test")
    one, two, _ = letters(3)
    job = run(start_job(action="redrive", selection={"ids": [one.pk, two.pk]}, by="ann"))
    assert (job.done, len(stored), DeadLetter.objects.count()) == (2, 2, 1)


def test_more_letters_than_are_named_are_counted():
    letters(REFUSED_MAX + 5)
    job = run(start_job(action="redrive", selection={}, by="ann"))
    assert (job.state, job.done, job.failed, len(job.refused)) == ("completed", 0, REFUSED_MAX + 5, REFUSED_MAX)
    assert DeadLetter.objects.count() == REFUSED_MAX + 5


def test_a_job_whose_worker_died_continues_after_the_last_letter_that_was_settled(stored, monkeypatch, queued):
    create_channel(address="trades", by="test")
    letters(AT_ONCE + 10)
    job = start_job(action="redrive", selection={}, by="ann")

    def die(*arguments):
        raise SystemExit

    monkeypatch.setattr(letter_jobs, "_end", die)
    with monkeypatch.context() as context:
        context.setattr(bus, "store_all", lambda messages: stored.extend(messages) if len(stored) < AT_ONCE else die())
        with pytest.raises(SystemExit):
            letter_jobs.run(job.id)
    monkeypatch.undo()
    monkeypatch.setattr(bus, "store_all", stored.extend)
    monkeypatch.setattr(letter_jobs, "queue", queued.append)
    letter_jobs.run(job.id)
    job.refresh_from_db()
    assert (job.state, job.done) == ("running", AT_ONCE), "another worker has it, as long as its heartbeat is recent"
    DeadLetterJob.objects.update(heartbeat_at=timezone.now() - STALE_AFTER * 2, created_at=timezone.now() - STALE_AFTER)
    sweep(timezone.now())
    assert queued == [job.id]
    assert (run(job).state, job.done, len(stored)) == ("completed", AT_ONCE + 10, AT_ONCE + 10)


def test_while_the_log_is_away_a_job_fails_and_keeps_its_letters(monkeypatch):
    def away(*arguments):
        raise bus.Unavailable("no answer")

    monkeypatch.setattr(bus, "store_all", away)
    create_channel(address="trades", by="test")
    letters(2)
    job = run(start_job(action="redrive", selection={}, by="ann"))
    assert (job.state, job.done, job.ended_at is None) == ("failed", 0, False)
    assert "the letters that are left are kept" in job.detail
    assert DeadLetter.objects.count() == 2


def test_a_cancelled_job_stops_after_the_letters_that_it_has_settled(stored, monkeypatch):
    create_channel(address="trades", by="test")
    letters(AT_ONCE * 2)
    job = start_job(action="redrive", selection={}, by="ann")

    def store_and_cancel(messages):
        stored.extend(messages)
        cancel_job(job, by="bob")

    monkeypatch.setattr(bus, "store_all", store_and_cancel)
    assert (run(job).state, job.detail, job.done) == ("cancelled", "Cancelled by bob.", AT_ONCE)
    assert (DeadLetter.objects.count(), len(stored)) == (AT_ONCE, AT_ONCE)


def test_an_ended_job_does_not_run_again_and_is_deleted_in_the_end(queued):
    letters(1)
    job = run(discard(channel="trades"))
    cancel_job(job, by="bob")
    assert run(job).state == "completed"
    sweep(timezone.now())
    sweep(timezone.now() + timedelta(days=31))
    assert not DeadLetterJob.objects.exists()
    assert queued == []


def test_the_open_jobs_and_the_selected_letters_are_bounded():
    for _ in range(OPEN_MAX):
        discard(channel="none")
    with pytest.raises(ValidationError, match="At most 20"):
        discard(channel="none")
    for ids in ([], list(range(10_001))):
        with pytest.raises(ValidationError, match="Select 1 to"):
            start_job(action="discard", selection={"ids": ids}, by="ann")


def test_a_job_is_queued_once_it_is_committed(queued, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = discard(channel="trades")
        assert queued == []
    assert queued == [job.id]
