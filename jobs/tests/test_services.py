import threading
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from gateway.tests.clock import EACH_WAY, Clock
from jobs import services
from jobs.models import ATTEMPTS_MAX, STALE_AFTER, Job, State
from jobs.registry import InvalidInput, Produced

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def accepted(document):
    return services.accept(document())


def silent(job):
    """Make a job's worker one that has not been heard of for too long."""
    Job.objects.filter(id=job.id).update(heartbeat_at=timezone.now() - STALE_AFTER - timedelta(seconds=1))


def test_a_job_is_accepted_once(document):
    assert services.accept(document()).state == State.QUEUED
    assert services.accept(document(input={"a": 2})) is None
    assert Job.objects.get().input == {"a": 1}


@pytest.mark.parametrize("input_", ["a\x00b", {"a": "\x00"}, {"a": "\ud800"}])
def test_input_that_no_table_can_hold_fails_and_holds_up_nobody(document, input_):
    assert services.accept(document(input=input_)) is None
    job = Job.objects.get()
    assert (job.state, job.error["status"]) == (State.FAILED, 422)
    assert job in Job.objects.unpublished()
    assert services.claim(job.id) is None


def test_a_job_runs_and_its_value_is_the_result(accepted, job_type):
    seen = []

    def work(task):
        task.progress(0.5, "half")
        seen.append((task.consumer, task.input, Job.objects.get().progress, Job.objects.get().message))
        return Produced(result={"sum": 3})

    job_type("work", work)
    services.run(accepted.id)
    job = Job.objects.get()
    assert seen == [("acme", {"a": 1}, 0.5, "half")]
    assert (job.state, job.progress, job.result, job.attempts) == (State.COMPLETED, 1.0, {"sum": 3}, 1)
    assert job.ended_at >= job.submitted_at
    assert job.version > job.published_version


def test_a_file_is_kept_in_the_job_s_own_folder(accepted, job_type, data_dir):
    job_type("work", lambda task: Produced(file=ContentFile(b"x"), file_name="r.csv", file_type="text/csv"))
    services.run(accepted.id)
    assert Job.objects.get().document()["file"] == {"name": "r.csv", "type": "text/csv"}
    assert Job.objects.get().file_bytes == 1
    assert (data_dir / "results" / accepted.id / "r.csv").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("fault", "status", "reported"),
    [(InvalidInput("`a` is no number."), 422, "`a` is no number."), (KeyError("secret"), 500, None)],
)
def test_a_fault_is_the_job_s_and_its_detail_is_not_for_strangers(accepted, job_type, caplog, fault, status, reported):
    def work(task):
        raise fault

    job_type("work", work)
    services.run(accepted.id)
    job = Job.objects.get()
    assert (job.state, job.error["status"]) == (State.FAILED, status)
    assert (job.error["detail"] == reported) if reported else ("secret" not in str(job.error))


def test_a_type_that_is_no_more_fails_the_job(accepted):
    services.run(accepted.id)
    assert "The job type `work` no longer exists" in Job.objects.get().error["detail"]


def test_a_job_never_runs_twice_at_once(accepted, job_type):
    began, go, runs = threading.Event(), threading.Event(), []

    def work(task):
        runs.append(task.id)
        began.set()
        assert go.wait(20)
        return Produced(result=1)

    def in_worker():
        try:
            services.run(accepted.id)
        finally:
            connection.close()

    job_type("work", work)
    first = threading.Thread(target=in_worker)
    first.start()
    assert began.wait(20)
    services.run(accepted.id)
    go.set()
    first.join(20)
    assert runs == [accepted.id]
    assert Job.objects.get().state == State.COMPLETED


def test_the_job_of_a_lost_worker_runs_again(accepted, job_type, lost_jobs):
    job_type("work", lambda task: Produced(result="again"))
    lost = services.claim(accepted.id)
    assert services.claim(accepted.id) is None
    silent(lost)
    assert lost_jobs.find(timezone.now()) == [accepted.id]
    services.run(accepted.id)
    assert (Job.objects.get().result, Job.objects.get().attempts) == ("again", 2)


def test_a_worker_that_comes_back_late_changes_nothing(accepted, job_type):
    def work(task):
        silent(accepted)
        assert services.claim(accepted.id) is not None
        task.progress(0.9, "too late")
        raise AssertionError("it should have been stopped")

    job_type("work", work)
    services.run(accepted.id)
    job = Job.objects.get()
    assert (job.state, job.progress, job.attempts) == (State.RUNNING, 0, 2)


def test_a_job_that_kills_its_workers_is_given_up(accepted, job_type):
    job_type("work", lambda task: Produced(result=1))
    for _ in range(ATTEMPTS_MAX):
        silent(services.claim(accepted.id))
    services.run(accepted.id)
    assert Job.objects.get().state == State.FAILED
    assert "Given up" in Job.objects.get().error["detail"]


def test_a_cancelled_job_is_not_begun(accepted, job_type):
    job_type("work", lambda task: pytest.fail("it was cancelled"))
    services.cancel(accepted.id)
    services.run(accepted.id)
    assert Job.objects.get().state == State.CANCELLED


def test_a_running_job_stops_where_it_next_reports(accepted, job_type):
    def work(task):
        services.cancel(accepted.id)
        task.progress(0.5, "going on")
        raise AssertionError("it should have been stopped")

    job_type("work", work)
    services.run(accepted.id)
    assert (Job.objects.get().state, Job.objects.get().progress) == (State.CANCELLED, 0)


def test_what_has_ended_cannot_be_cancelled(accepted, job_type):
    job_type("work", lambda task: Produced(result=1))
    services.run(accepted.id)
    version = Job.objects.get().version
    services.cancel(accepted.id)
    assert (Job.objects.get().state, Job.objects.get().version) == (State.COMPLETED, version)


def test_what_was_just_queued_is_not_lost(document, lost_jobs):
    services.accept(document(submitted_at=timezone.now().timestamp()))
    assert lost_jobs.find(timezone.now()) == []
    assert lost_jobs.find(timezone.now() + timedelta(seconds=6)) == ["j1"]


@EACH_WAY
def test_a_running_job_is_not_lost_because_the_clock_was_set(accepted, monkeypatch, jump_s, lost_jobs):
    running = services.claim(accepted.id)
    assert lost_jobs.find(timezone.now()) == []
    clock = Clock(monkeypatch)
    clock.jump(jump_s)
    now = timezone.now() + timedelta(seconds=jump_s)
    assert lost_jobs.find(now) == []
    # And one whose worker was lost is found as soon as ever.
    assert lost_jobs.find(now + STALE_AFTER + timedelta(seconds=1)) == [running.id]


def test_a_job_that_was_heard_of_in_the_future_is_lost(accepted, lost_jobs):
    """Its worker went while the clock stood wrong."""
    services.claim(accepted.id)
    Job.objects.update(heartbeat_at=timezone.now() + timedelta(hours=1))
    assert lost_jobs.find(timezone.now()) == [accepted.id]


def test_a_job_that_waits_is_not_queued_again_and_again(document, lost_jobs):
    services.accept(document())
    reported, later = [], timezone.now() + timedelta(seconds=6)
    for _ in range(3):
        lost_jobs.requeue(later, reported.append)
    assert reported == ["j1"]


def test_a_job_that_could_not_be_queued_is_tried_again_at_once(document, lost_jobs):
    services.accept(document())
    reported, later = [], timezone.now() + timedelta(seconds=6)

    def away(job_id):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_jobs.requeue(later, away)
    lost_jobs.requeue(later, reported.append)
    assert reported == ["j1"]
