"""The periodic task: every kind in turn, within its time, with writers let in between, whatever fails."""

import threading
import time
from dataclasses import fields
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.utils import timezone

from apimgmt import env, retention, tasks
from apimgmt.kept import Retention
from operators.batches import REMOVED
from operators.retention import keep_sessions

pytestmark = pytest.mark.django_db


def count(what):
    return REMOVED.labels(what)._value.get()


def test_each_kind_has_its_turn_and_a_failing_one_keeps_none_from_it(caplog):
    turns = []

    def kind(name, number):
        for _ in range(number):
            turns.append(name)
            yield 10

    def failing(now):
        yield 1
        raise OSError("no space left on device")

    kinds = {"a": lambda now: kind("a", 3), "bad": failing, "b": lambda now: kind("b", 2)}
    before = count("a")
    assert retention.keep_bounds(timezone.now(), kinds=kinds) == {"a": 30, "bad": 1, "b": 20}
    assert turns == ["a", "b", "a", "b", "a"]
    assert count("a") - before == 30
    assert "bad could not be brought within bounds" in caplog.text


def test_a_run_ends_in_its_time_and_the_next_continues():
    left = list(range(1000))

    def kind(now):
        while left:
            left.pop()
            yield 1

    assert retention.keep_bounds(timezone.now(), within_s=0.05, kinds={"a": kind})["a"] < 1000
    retention.PAUSE_MIN_S, kept = 0.0, retention.PAUSE_MIN_S
    try:
        retention.keep_bounds(timezone.now(), kinds={"a": kind})
    finally:
        retention.PAUSE_MIN_S = kept
    assert left == []


def test_ended_sessions_go_by_task_and_by_command():
    now = timezone.now()
    Session.objects.bulk_create(
        [Session(session_key=f"{number}", expire_date=now + timedelta(days=number - 5)) for number in range(10)]
    )
    tasks.keep_bounds()
    assert Session.objects.count() == 4
    assert retention.KEPT_AT._value.get() > time.time() - 60
    Session.objects.update(expire_date=now - timedelta(days=1))
    out = StringIO()
    call_command("prune", stdout=out)
    assert "sessions: 4 removed" in out.getvalue()
    assert not Session.objects.exists()


@pytest.mark.parametrize("value", ["-1", "1.5", "forever", str(2**50)])
@pytest.mark.parametrize("field", ["audit_days", "usage_rows"])
def test_an_invalid_bound_is_named(monkeypatch, field, value):
    monkeypatch.setenv(f"RETENTION_{field.upper()}", value)
    with pytest.raises(env.InvalidSetting, match=f"RETENTION_{field.upper()}"):
        env.retention()


def test_zero_is_no_bound_and_nothing_is_the_default(monkeypatch):
    monkeypatch.setenv("RETENTION_USAGE_DAYS", "0")
    monkeypatch.setenv("RETENTION_USAGE_ROWS", "")
    assert (env.retention().usage_days, env.retention().usage_rows) == (0, Retention().usage_rows)
    assert all(isinstance(field.default, int) for field in fields(Retention))


@pytest.mark.django_db(transaction=True)
def test_writers_go_on_meanwhile():
    now = timezone.now()
    old = {"expire_date": now - timedelta(days=1)}
    Session.objects.bulk_create([Session(session_key=f"old-{number}", **old) for number in range(5000)])
    has_ended, written, errors = threading.Event(), [], []

    def write():
        try:
            while not has_ended.is_set():
                key = f"new-{len(written)}"
                Session.objects.create(session_key=key, expire_date=now + timedelta(days=1))
                written.append(key)
        except DatabaseError as error:
            errors.append(error)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    removed = retention.keep_bounds(now, kinds={"sessions": keep_sessions}, afterwards={})
    has_ended.set()
    writer.join()
    assert removed == {"sessions": 5000}
    assert not errors
    assert Session.objects.count() == len(written) > 0
