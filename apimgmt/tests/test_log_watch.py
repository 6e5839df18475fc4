import json

import pytest

from apimgmt.launcher import log_watch
from apimgmt.launcher.log_watch import LogWatch


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "web-1.log").write_text(line("error", "of an earlier run"))
    return tmp_path


@pytest.fixture
def reported(monkeypatch):
    monkeypatch.setattr(log_watch, "CHECK_S", 0)
    return []


@pytest.fixture
def watch(folder, reported):
    return LogWatch(folder, lambda name, what: reported.append((name, what)), file_max_bytes=1000)


def line(level, message):
    return json.dumps({"level": level, "message": message}) + "\n"


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def test_new_errors_are_told_and_nothing_else(folder, watch, reported):
    add(folder / "web-1.log", line("info", "began") + "a banner\n{}\n[1]\n" + line("error", "it failed"))
    add(folder / "worker.log", line("critical", "it is worse"))
    watch.check()
    watch.check()
    assert reported == [("web-1", "it failed"), ("worker", "it is worse")]


def test_a_line_that_is_half_written_is_told_when_it_is_whole(folder, watch, reported):
    whole = line("error", "in two parts")
    add(folder / "web-1.log", whole[:20])
    watch.check()
    assert reported == []
    add(folder / "web-1.log", whole[20:])
    watch.check()
    assert reported == [("web-1", "in two parts")]


def test_what_is_said_again_and_again_is_told_once(folder, watch, reported):
    for number in range(5):
        add(folder / "worker.log", line("error", f"no broker, try {number}"))
        watch.check()
    assert reported == [("worker", "no broker, try 0")]


def test_many_errors_are_counted(folder, watch, reported):
    add(folder / "web-1.log", "".join(line("error", letter) for letter in "abcdefgh"))
    watch.check()
    assert [what for _, what in reported[:3]] == ["a", "b", "c"]
    assert reported[3][1].startswith("5 more errors are in ")


def test_a_file_that_grows_is_begun_anew_and_goes_on_being_read(folder, watch, reported):
    path = folder / "web-1.log"
    with path.open("a") as process:
        process.write(line("info", "x" * 2000))
        process.flush()
        watch.check()
        assert path.stat().st_size == 0
        assert "x" * 2000 in path.with_suffix(".log.1").read_text()
        process.write(line("error", "after"))
        process.flush()
        watch.check()
    assert reported == [("web-1", "after")]


def test_a_line_without_end_is_passed_over(folder, watch, reported, monkeypatch):
    monkeypatch.setattr(log_watch, "READ_MAX_BYTES", 100)
    add(folder / "web-1.log", "x" * 500)
    watch.check()
    add(folder / "web-1.log", "\n" + line("error", "after"))
    watch.check()
    assert reported == [("web-1", "after")]


def test_without_a_bound_a_file_grows(folder, reported):
    watch = LogWatch(folder, lambda name, what: reported.append((name, what)), file_max_bytes=0)
    add(folder / "web-1.log", line("info", "x" * 5000))
    watch.check()
    assert (folder / "web-1.log").stat().st_size > 5000
