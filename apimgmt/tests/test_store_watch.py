from types import SimpleNamespace

import pytest

from apimgmt.launcher import store_watch
from apimgmt.launcher.store_watch import StoreWatch

MET = "[7] [ERR] JetStream failed to store a msg: write 9.blk: no space left on device\n"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_watch, "CHECK_S", 0)
    monkeypatch.setattr(store_watch, "RESTART_EVERY_S", 0)
    log = tmp_path / "nats.log"
    log.write_text(MET)
    reported = SimpleNamespace(log=log, disk=SimpleNamespace(is_full=True), restarts=0)

    def restart():
        reported.restarts += 1

    reported.watch = StoreWatch(log, reported.disk, restart)
    return reported


def say(store, text):
    with store.log.open("a") as file:
        file.write(text)
    store.watch.check()


def test_what_met_a_full_disk_is_started_anew_once_when_there_is_room(store):
    say(store, MET)
    say(store, MET)
    assert store.restarts == 0
    store.disk.is_full = False
    store.watch.check()
    say(store, "[8] [INF] Server is ready\n")
    assert store.restarts == 1
    say(store, MET)
    assert store.restarts == 2


def test_what_an_earlier_run_met_and_other_words_are_nothing(store):
    store.disk.is_full = False
    store.watch.check()
    say(store, "[7] [WRN] slow\n")
    store.log.unlink()
    store.watch.check()
    assert store.restarts == 0


def test_a_word_that_comes_in_two_parts_is_heard(store):
    store.disk.is_full = False
    say(store, MET[:60])
    say(store, MET[60:])
    assert store.restarts == 1


def test_an_end_that_is_not_seen_here_does_not_keep_it_from_serving(store, monkeypatch):
    monkeypatch.setattr(store_watch, "RESTART_EVERY_S", 3600)
    store.disk.is_full = False
    for _ in range(3):
        say(store, MET)
    assert (store.restarts, store.watch.was_full) == (1, True)
