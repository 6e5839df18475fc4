"""Streams of events come in any pieces: what is cut from them is the same."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Reason, Refused
from gateway.wire.event_stream import EVENT_MAX_BYTES, EventCutter, data_of, final_event, is_event_stream

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data:",
        b": heartbeat",
        b"event: error",
        b"id: 1",
        b"retry: 5",
        b"\xff\x00",
        b"",
    ]
)
ENDS = st.sampled_from([b"\r", b"\n", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(lambda lines: b"".join(line + end for line, end in lines))


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[begins:ends] for begins, ends in itertools.pairwise(at)]


def all_of(cutter: EventCutter, pieces: list[bytes]) -> list[bytes]:
    events = [event for piece in pieces for event in cutter.cut(piece)]
    rest = cutter.rest()
    return [*events, rest] if rest else events


def data_by_the_book(stream: bytes) -> list[bytes]:
    """Read a stream as WHATWG HTML 9.2.6 says, line by line."""
    events, data, has_data = [], [], False
    normal = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines, _, _ = normal.rpartition(b"\n")
    for line in lines.split(b"\n") if b"\n" in normal else []:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
                has_data = True
        elif has_data:
            events.append(b"\n".join(data))
            data, has_data = [], False
    return events


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_the_bytes_are_those_that_came_whatever_the_pieces(stream, cuts):
    assert b"".join(all_of(EventCutter(), pieces_of(stream, cuts))) == stream


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_whole_events_are_those_of_the_standard_whatever_the_pieces(stream, cuts):
    cutter = EventCutter()
    events = [event for piece in pieces_of(stream, cuts) for event in cutter.cut(piece)]
    expected = [data for data in data_by_the_book(stream) if data]
    assert [data for event in events if (data := data_of(event))] == expected


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_given_always_ends_with_a_line_and_an_event_with_a_blank_one(stream, cuts):
    cutter = EventCutter()
    for piece in pieces_of(stream, cuts):
        for event in cutter.cut(piece):
            assert event.endswith((b"\n", b"\r"))
            lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            is_event = any(line and not line.startswith((b":", b"retry")) for line in lines)
            assert not is_event or event.endswith(
                (b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\r\r\n", b"\n\r", b"\r\n\r")
            )
    assert cutter.is_between


def test_one_event_at_a_time_costs_no_more_than_its_bytes():
    """A large event that comes byte by byte is not looked at again from its start each time."""
    cutter = EventCutter()
    for _ in range(20_000):
        assert cutter.cut(b"x" * 10) == []
    assert cutter.cut(b"\n\n") == [b"x" * 200_000 + b"\n\n"]


def test_an_event_without_end_is_not_held():
    cutter = EventCutter()
    part = b"data: " + b"x" * (EVENT_MAX_BYTES // 2)
    assert cutter.cut(part) == []
    [piece] = cutter.cut(part + b"x")
    assert piece == part + part + b"x"
    assert not cutter.is_between
    assert cutter.cut(b"y\n\ndata: 1\n\n") == [b"y\n\n", b"data: 1\n\n"]
    assert cutter.is_between


def test_a_byte_order_mark_is_no_part_of_the_first_field():
    assert data_of(b"\xef\xbb\xbfdata: 1\n\n") == b"1"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"content-type", b"Text/Event-Stream; charset=utf-8")], True),
        ([(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")], False),
        ([(b"content-type", b"application/json")], False),
        ([], False),
    ],
)
def test_what_is_a_stream_of_events(headers, expected):
    assert is_event_stream(headers) is expected


def test_the_final_event_carries_the_reason_and_when_to_reconnect():
    refused = Refused(Reason.RATE_LIMITED, "Enough.", retry_after_s=1.5)
    body = final_event(refused)
    assert body.startswith(b"retry: 1500\nevent: error\ndata: {")
    assert b'"reason":"rate-limited"' in body
    assert body.endswith(b"\n\n")
    assert final_event(Refused(Reason.QUOTA_EXCEEDED, retry_after_s=1e9)).startswith(b"retry: 3600000\n")
    assert final_event(Refused(Reason.DRAINING)) == b""


@pytest.mark.parametrize(
    "line", [b": hello", b":", b"retry: 5000", b"retry", b"", b"\xef\xbb\xbf: first", b": caf\xc3"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_that_is_no_part_of_an_event_does_not_wait_for_one(line, end):
    """stellar/go-stellar-sdk#376, maximhq/bifrost#5010."""
    cutter = EventCutter()
    assert cutter.cut(line) == []
    assert b"".join(cutter.cut(end)) == line + end
    assert (cutter.held, cutter.is_between) == (b"", True)
    assert cutter.cut(b"data: 1" + end) == []
    assert cutter.cut(line + end if line else b"x" + end) == []
    assert data_of(b"".join(cutter.cut(end))) == b"1"


@pytest.mark.parametrize("line", [b"id: 1", b"event: x", b"data", b"retryx: 1", b" : no comment", b"unknown"])
def test_a_line_of_an_event_waits_for_its_end(line):
    cutter = EventCutter()
    assert cutter.cut(b": aside\n" + line + b"\n: inside\n") == [b": aside\n"]
    assert cutter.cut(b"\n") == [line + b"\n: inside\n\n"]


def test_a_long_comment_in_small_parts_costs_no_more_than_its_bytes():
    cutter = EventCutter()
    began_at = time.process_time()
    for _ in range(EVENT_MAX_BYTES // 16):
        assert cutter.cut(b": comment in par") == []
    assert cutter.cut(b"\n")
    assert time.process_time() - began_at < 20
