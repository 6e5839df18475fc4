"""The audit of requirements finds what an advisory names, and nothing else."""

import json
import zipfile

import pytest

from tests.advisories.__main__ import USAGE, main
from tests.advisories.records import Advisories, is_affected

HASH = "sha256:" + "0" * 64


def advisory(number, name, *events, **more):
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges, **more}
    return {"id": f"TEST-{number}", "summary": "A test.", "affected": [affected]}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "advisories"
    folder.mkdir()

    def write(*records):
        for record in records:
            (folder / f"{record['id']}.json").write_text(json.dumps(record))
        return folder

    return write


@pytest.fixture
def requirements(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(f"some-package==2.5.0 --hash={HASH}\nother==1.0 --hash={HASH}\n")
    return path


@pytest.mark.parametrize(
    ("version", "affected"),
    [("1.9", False), ("2.0", True), ("2.4.9", True), ("2.5", False), ("3.0rc1", True), ("3.0", True), ("3.1", False)],
)
def test_a_version_is_affected_from_its_introduction_until_its_fix(version, affected):
    from packaging.version import Version

    events = ({"introduced": "3.0rc1"}, {"last_affected": "3.0"}, {"introduced": "2.0"}, {"fixed": "2.5"})
    assert is_affected(advisory(1, "p", *events)["affected"][0], Version(version)) is affected


def test_versions_that_are_listed_are_affected(folder):
    advisories = Advisories.read(folder(advisory(1, "Some_Package", versions=["2.5", "not a version"])))
    assert [record["id"] for record in advisories.concerning("some-package", "2.5.0")] == ["TEST-1"]
    assert advisories.concerning("some-package", "2.6") == []


def test_a_withdrawn_advisory_concerns_nobody(folder):
    record = advisory(1, "some-package", {"introduced": "0"}) | {"withdrawn": "2026-01-01T00:00:00Z"}
    assert Advisories.read(folder(record)).concerning("some-package", "1.0") == []


def test_the_audit_fails_for_a_pinned_version_that_is_affected(folder, requirements, capfd):
    path = folder(advisory(1, "some-package", {"introduced": "0"}, {"fixed": "2.5.1"}))
    assert main([str(path), str(requirements)]) == 1
    printed = capfd.readouterr().out
    assert "TEST-1" in printed
    assert "2.5.1" in printed


def test_the_audit_passes_where_the_fix_is_pinned(folder, requirements, capfd):
    path = folder(advisory(1, "some-package", {"introduced": "0"}, {"fixed": "2.5.0"}))
    assert main([str(path), str(requirements)]) == 0


def test_an_archive_is_a_source_too(folder, requirements, tmp_path, capfd):
    record = advisory(1, "other", {"introduced": "1.0"})
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("TEST-1.json", json.dumps(record))
    assert main([str(tmp_path / "all.zip"), str(requirements)]) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "A", "affected": []}'])
def test_a_source_without_advisories_is_no_audit(tmp_path, requirements, text, capsys):
    (tmp_path / "empty").mkdir()
    if text:
        (tmp_path / "empty" / "a.json").write_text(text)
    assert main([str(tmp_path / "empty"), str(requirements)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_an_audit_without_a_source_says_which_there_are(capsys):
    assert main([""]) == 2
    assert capsys.readouterr().err == USAGE
