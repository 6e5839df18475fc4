from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.log import conflation
from gateway.log.conflation import Conflation
from gateway.log.event import Event
from gateway.refusals import Refused
from gateway.snapshot.right import interval_of


class Reader:
    """What one reader gets, and a clock that only the test moves."""

    def __init__(self, is_ready=True):
        self.got = []
        self.is_ready = is_ready
        self.due = None
        self.ids = 0
        self.conflation = Conflation(1.0, self.got.append, lambda: self.is_ready, call_later=self.call_later)

    def call_later(self, delay_s, callback):
        assert delay_s == 1.0
        assert self.due is None
        self.due = callback
        return Mock(cancel=self.cancelled)

    def cancelled(self):
        self.due = None

    def comes(self, address, by=1):
        self.ids += by
        self.conflation.offer(Event("c", address, self.ids, "", b"1"))

    def interval_ends(self):
        due, self.due = self.due, None
        if due is not None:
            due()

    @property
    def parsed(self):
        return [(event.address, event.id) for event in self.got]


def test_the_first_event_is_delivered_at_once_and_then_the_latest_of_each_address_in_each_interval():
    reader = Reader()
    for address in ("a", "a", "b", "a"):
        reader.comes(address)
    assert reader.parsed == [("a", 1)]
    reader.interval_ends()
    assert reader.parsed == [("a", 1), ("b", 3), ("a", 4)]
    reader.comes("b")
    assert len(reader.got) == 3
    reader.interval_ends()
    assert reader.parsed[3:] == [("b", 5)]


def test_after_a_quiet_interval_an_event_does_not_wait():
    reader = Reader()
    reader.comes("a")
    reader.interval_ends()
    assert reader.due is None
    reader.comes("a")
    assert reader.parsed == [("a", 1), ("a", 2)]


def test_a_reader_without_room_gets_the_latest_state_once_it_has():
    reader = Reader()
    reader.comes("a")
    reader.is_ready = False
    for _ in range(3):
        reader.comes("a")
        reader.interval_ends()
    assert reader.parsed == [("a", 1)]
    reader.is_ready = True
    reader.interval_ends()
    assert reader.parsed == [("a", 1), ("a", 4)]


def test_what_waits_is_bounded_and_nothing_of_it_is_lost(monkeypatch):
    monkeypatch.setattr(conflation, "PENDING_MAX", 3)
    reader = Reader(is_ready=False)
    for number in range(5):
        reader.comes(f"a{number}")
    assert [id_ for _, id_ in reader.parsed] == [1, 2, 3, 4, 5]


def test_who_has_stopped_gets_nothing():
    reader = Reader()
    reader.comes("a")
    reader.comes("a")
    reader.conflation.stop()
    assert reader.due is None
    assert len(reader.got) == 1


@given(st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("abc"), st.integers(1, 5)))))
def test_ids_rise_and_nothing_older_than_the_last_one_seen_is_still_to_come(steps):
    """None ends an interval; else an event comes at the address, so many ids further on."""
    reader, latest = Reader(), {}
    for step in steps:
        before = len(reader.got)
        if step is None:
            reader.interval_ends()
            assert len({address for address, _ in reader.parsed[before:]}) == len(reader.parsed[before:])
        else:
            reader.comes(*step)
            latest[step[0]] = reader.ids
    reader.interval_ends()
    ids = [id_ for _, id_ in reader.parsed]
    assert ids == sorted(set(ids))
    assert dict(reader.parsed) == latest


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("250ms", 0.25), ("2m", 120), ("0.5s", 0.5), ("60m", 3600)])
def test_intervals_are_read(text, seconds):
    assert interval_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "0s", "1h", "5ms", "61m", "1 s", "NaNs", "1e3s", "٣s", "9" * 99])
def test_other_intervals_are_refused(text):
    with pytest.raises(Refused, match="conflate"):
        interval_of(text)


def test_an_interval_of_0_gives_what_waits_and_then_every_event():
    reader = Reader()
    reader.comes("a")
    reader.comes("a")
    reader.conflation.change(0)
    reader.interval_ends()
    reader.comes("a")
    reader.comes("a")
    assert reader.parsed == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
