"""A bounded audit log: what goes is exported first, and every instant since the checkpoint stays exact."""

import gzip
import hashlib
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.conf import settings as project
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import retention
from audit.models import Change, Checkpoint
from audit.retention import keep_changes
from audit.services import configuration_as_of, diff_between
from audit.tests.histories import HISTORIES
from configuration.rollback import roll_back

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CUT = datetime(2026, 10, 24, tzinfo=UTC)


@pytest.fixture(autouse=True)
def folder(tmp_path, settings):
    settings.RETENTION = replace(project.RETENTION, audit_days=30)
    settings.RETENTION_AUDIT_DIR = tmp_path / "audit"
    return tmp_path / "audit"


def change(at, *, kind="tier", name="gold", number=1, action="updated", is_published=True):
    is_of_object = action in ("created", "updated", "deleted")
    before = {"name": name} if is_of_object else None
    after = {"name": name, "description": str(number)} if action in ("created", "updated") else None
    return Change(
        at=at, actor="ann", kind=kind, name=name, action=action, before=before, after=after,
        published_at=at if is_published else None,
    )  # fmt: skip


def record(*changes):
    """Store changes with their own instants, which the model would set to now."""
    instants = [row.at for row in changes]
    rows = Change.objects.bulk_create(changes, batch_size=2000)
    for row, at in zip(rows, instants, strict=True):
        row.at = at
    Change.objects.bulk_update(rows, ["at"], batch_size=500)


def exported(folder):
    lines = []
    for path in sorted(folder.glob("audit-*.jsonl.gz")):
        lines += [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return lines


def test_by_default_every_change_is_kept(settings):
    settings.RETENTION = replace(project.RETENTION, audit_days=0)
    record(change(NOW - timedelta(days=5000)), change(NOW - timedelta(days=4000)))
    assert list(keep_changes(NOW)) == []
    assert Change.objects.count() == 2


def test_of_each_object_the_last_earlier_change_stays_and_what_goes_is_in_the_file(folder):
    record(
        change(CUT - timedelta(days=3), number=1),
        change(CUT - timedelta(days=2), number=2),
        change(CUT - timedelta(days=2), name="old", number=3),
        change(CUT - timedelta(days=1), name="old", action="deleted"),
        change(CUT - timedelta(days=1), kind="dead-letter", name="7", action="deleted"),
        change(CUT - timedelta(days=1), kind="session", name="ann", action="signed-in"),
        change(CUT - timedelta(days=1), kind="account", name="ann", action="created"),
        change(CUT + timedelta(hours=1), number=4),
    )
    before = {at: configuration_as_of(at) for at in (CUT, CUT + timedelta(hours=2))}
    list(keep_changes(NOW))
    kept = [(one.kind, one.after["description"]) for one in Change.objects.order_by("pk")]
    assert kept == [("tier", "2"), ("account", "1"), ("tier", "4")]
    assert [(one["kind"], one["name"], one["action"]) for one in exported(folder)] == [
        ("tier", "gold", "updated"), ("tier", "old", "updated"), ("dead-letter", "7", "deleted"),
        ("session", "ann", "signed-in"), ("tier", "old", "deleted"),
    ]  # fmt: skip
    assert {at: configuration_as_of(at) for at in before} == before
    assert list(keep_changes(NOW)) == []


def test_files_are_checked_by_the_usual_tool_and_cannot_be_written(folder):
    record(*[change(CUT - timedelta(days=number), number=number) for number in range(9, 0, -1)])
    list(keep_changes(NOW))
    result = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True)
    (path,) = folder.glob("audit-*.jsonl.gz")
    assert result.stdout == f"{path.name}: OK\n"
    assert path.stat().st_mode & 0o777 == 0o400
    assert folder.stat().st_mode & 0o777 == 0o700
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in path.name
    assert {"id", "at", "actor", "before", "after"} <= set(exported(folder)[0])


def test_a_change_that_the_data_plane_has_not_received_stays():
    record(change(CUT - timedelta(days=3), is_published=False), change(CUT - timedelta(days=2)))
    assert list(keep_changes(NOW)) == []


def test_after_a_crash_between_file_and_tables_nothing_is_lost(folder, monkeypatch):
    record(*[change(CUT - timedelta(days=number), number=number) for number in range(9, 0, -1)])

    def crash(*args, **kwargs):
        raise OSError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "advance", crash)
        with pytest.raises(OSError, match="crash"):
            list(keep_changes(NOW))
    assert Change.objects.count() == 9
    list(keep_changes(NOW))
    assert [one["after"]["description"] for one in exported(folder)] == [str(number) for number in range(9, 1, -1)]
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 1


def test_what_a_crash_left_half_written_is_in_the_way_of_nothing(folder):
    folder.mkdir()
    (folder / ".partial").write_bytes(b"half")
    (folder / ".partial").chmod(0o400)
    (folder / "SHA256SUMS").write_text("0123 cut")
    record(change(CUT - timedelta(days=3)), change(CUT - timedelta(days=2)))
    list(keep_changes(NOW))
    (path,) = folder.glob("audit-*.jsonl.gz")
    assert (folder / "SHA256SUMS").read_text().splitlines()[1].endswith(path.name)
    assert sorted(one.name for one in folder.iterdir()) == ["SHA256SUMS", path.name]


def test_an_export_that_fails_deletes_nothing(settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    settings.RETENTION_AUDIT_DIR = tmp_path / "file"
    record(change(CUT - timedelta(days=3)), change(CUT - timedelta(days=2)))
    with pytest.raises(OSError, match="file"):
        list(keep_changes(NOW))
    assert Change.objects.count() == 2


def test_an_earlier_instant_is_refused_everywhere_with_the_first_one_that_is_known(client, django_user_model):
    record(change(CUT - timedelta(days=3)), change(CUT - timedelta(days=2), number=2), change(CUT, number=3))
    list(keep_changes(NOW))
    early, first = "2026-10-23T23:59:59Z", "2026-10-24T00:00:00Z"
    with pytest.raises(CommandError, match=f"complete since {first}"):
        call_command("changes", as_of=early)
    with pytest.raises(CommandError, match=f"complete since {first}"):
        call_command("changes", since=early)
    with pytest.raises(ValidationError, match=f"complete since {first}"):
        roll_back(CUT - timedelta(seconds=1), by="ann")
    client.force_login(django_user_model.objects.create_superuser("ann", password="x"))
    for query, name in ((f"?as_of={early}", "as_of"), (f"diff?since={early}", "since")):
        answer = client.get(f"/api/v1/audit/{query}")
        assert answer.status_code == 400
        assert first in answer.json()["errors"][name][0]
    out = StringIO()
    call_command("changes", as_of=first, stdout=out)
    assert json.loads(out.getvalue())["description"] == "3"
    (found,) = client.get(f"/api/v1/audit/?as_of={first}").json()["results"]
    assert found["after"]["description"] == "3"
    out = StringIO()
    call_command("changes", stdout=out)
    assert f"The log is complete since {first}; 1 earlier changes were exported." in out.getvalue()


def test_a_year_of_changes_is_exported_in_batches_within_a_budget(folder, django_assert_max_num_queries):
    begin = NOW - timedelta(days=365)
    record(*[
        change(begin + timedelta(hours=number), name=f"t{number % 50}", number=number) for number in range(365 * 24)
    ])  # fmt: skip
    steps = keep_changes(NOW)
    with django_assert_max_num_queries(8):
        assert next(steps) == retention.BATCH
    for _ in steps:
        pass
    in_window = 30 * 24 + 12
    assert Change.objects.count() == in_window + 50
    assert len(exported(folder)) == 365 * 24 - in_window - 50
    assert Checkpoint.objects.get().exported == len(exported(folder))
    assert len(configuration_as_of(CUT)) == 50


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(HISTORIES, st.integers(0, 40))
def test_any_history_is_exact_since_any_checkpoint(folder, history, minutes):
    with history.lived() as lived:
        instants = list(lived)
        Change.objects.update(published_at=timezone.now())
        cut = instants[0] + timedelta(minutes=minutes)
        since = [at for at in [*instants, instants[-1] + timedelta(minutes=1)] if at >= cut]
        before = {at: configuration_as_of(at) for at in since}
        while changes := list(retention.superseded(cut)[:3]):
            Checkpoint.advance(cut, changes=len(changes), file="x")
            Change.objects.filter(pk__in=[one.pk for one in changes]).remove_exported()
        assert {at: configuration_as_of(at) for at in since} == before
        if since:
            assert not diff_between(since[-1], since[-1])
