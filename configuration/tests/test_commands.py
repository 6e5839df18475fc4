from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from audit.models import Change
from consumers.models import Tier
from events.models import Channel

pytestmark = pytest.mark.django_db


def run(*words):
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("tiers:\n  - {name: gold, description: '[bold]x'}\n")
    return path


def test_apply_shows_what_changes_and_who_did_it(document):
    shown = run("apply", str(document))
    assert "+ tier gold" in shown
    assert '+ description: "[bold]x"' in shown
    assert shown.endswith("1 created.\n")
    assert Change.objects.get().actor == "manage.py apply"
    assert run("apply", str(document)) == "Nothing to change.\n"
    document.write_text("tiers:\n  - {name: gold, description: new}\n")
    shown = run("apply", str(document))
    assert "~ tier gold" in shown
    assert '- description: "[bold]x"' in shown
    assert '+ description: "new"' in shown


def test_a_dry_run_exits_with_2_for_differences_and_with_0_for_none(document):
    with pytest.raises(SystemExit) as ended:
        run("apply", "--dry-run", str(document))
    assert ended.value.code == 2
    assert not Tier.objects.exists()
    run("apply", str(document))
    assert run("apply", "--dry-run", str(document)) == "Nothing to change.\n"


def test_prune_is_an_option(document):
    run("apply", str(document))
    document.write_text("tiers: []")
    assert "- tier gold" in run("apply", "--prune", str(document))


def test_an_error_is_one_line_without_a_traceback(document):
    document.write_text("tiers: [")
    with pytest.raises(CommandError, match=r"c\.yaml:2:1: "):
        run("apply", str(document))


def test_a_document_is_read_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("tiers: [{name: piped}]"))
    assert "+ tier piped" in run("apply", "-")


def test_import_reads_standard_input(monkeypatch):
    document = "asyncapi: 3.0.0\ninfo: {title: Piped}\nchannels: {c: {address: a/b}}"
    for expected in ("+ channel a/b", "Nothing to change."):
        monkeypatch.setattr("sys.stdin", StringIO(document))
        assert expected in run("import", "-")
    assert Channel.objects.get().imported_from == "Piped (standard input)"


def test_export_prints_what_apply_takes(document, tmp_path):
    run("apply", str(document))
    again = tmp_path / "again.yaml"
    again.write_text(run("export"))
    assert run("apply", "--prune", str(again)) == "Nothing to change.\n"


def test_import_shows_its_changes_and_a_dry_run_makes_none(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("asyncapi: 3.0.0\nchannels: {c: {address: a/b}}")
    assert "+ channel a/b" in run("import", "--dry-run", str(path))
    assert not Change.objects.exists()
    run("import", str(path))
    assert Change.objects.get().actor == "manage.py import"
    assert run("import", str(path)) == "Nothing to change.\n"


def test_import_of_anything_else_is_refused(document):
    with pytest.raises(CommandError, match="must be OpenAPI 3, Swagger 2, AsyncAPI"):
        run("import", str(document))
