from datetime import timedelta

import pytest

from apimgmt.beat import Scheduler
from apimgmt.celery import application


@pytest.fixture
def scheduler(tmp_path):
    made = Scheduler(application, schedule_filename=str(tmp_path / "schedule"), lazy=True)
    made.setup_schedule()
    yield made
    made.close()


@pytest.mark.parametrize("ran", [timedelta(hours=1), timedelta(hours=-1)], ids=["clock set back", "clock set on"])
def test_what_is_due_runs_soon_whatever_became_of_the_clock(scheduler, ran):
    entry = scheduler.schedule["requeue lost jobs"]
    entry.last_run_at = entry.default_now() + ran
    is_due, look_again_s = scheduler.is_due(entry)
    assert is_due or look_again_s <= 2


def test_it_is_the_one_that_runs():
    assert application.conf.beat_scheduler == "apimgmt.beat:Scheduler"
