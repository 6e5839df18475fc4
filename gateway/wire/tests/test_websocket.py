"""Frames, beside another implementation: what it writes is read, what is written it reads, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    COUNTED_MAX,
    INVALID_DATA,
    NO_CODE,
    PING,
    PROTOCOL_ERROR,
    TEXT,
    TOO_LARGE,
    FrameFault,
    FrameReader,
    close_payload,
    closed_with,
    count_whole,
    frame,
)

MASK = b"\x01\x80\xff\x00"
SIZES = [0, 1, 125, 126, 65_535, 65_536]


@pytest.mark.parametrize("mask", [b"", MASK])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_is_read_whole_by_another_implementation(size, mask):
    reader = StreamReader()
    reader.feed_data(frame(TEXT, b"x" * size, mask) + frame(TEXT, b"next", mask))
    for payload in (b"x" * size, b"next"):
        parsing = Frame.parse(reader.read_exact, mask=bool(mask))
        with pytest.raises(StopIteration) as stop:
            next(parsing)
        assert (bytes(stop.value.value.data), stop.value.value.opcode) == (payload, Opcode.TEXT)


def read(reader):
    items = []
    while (item := reader.next()) is not None:
        items.append(item)
    return items


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.text(max_size=30))),
    st.lists(st.integers(0, 400)),
    st.booleans(),
)
def test_frames_are_read_however_they_are_cut(sent, cuts, is_masked):
    data = b"".join(frame(kind, text.encode(), MASK if is_masked else b"") for kind, text in sent)
    reader, found, at = FrameReader(1000, is_masked=is_masked), [], 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > at:
            reader.feed(data[at:cut])
            at = cut
        found += read(reader)
    assert found == [(kind, text if kind == TEXT else text.encode()) for kind, text in sent]
    assert reader.is_between_messages
    assert reader.parsed_bytes == len(data)


@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.text(max_size=200))), st.booleans())
def test_whole_messages_are_counted_as_they_are_read(sent, is_masked):
    frames = [frame(kind, text.encode(), MASK if is_masked else b"") for kind, text in sent]
    whole = b"".join(frames)
    partial = frame(TEXT, b"unfinished", MASK if is_masked else b"")[:5]
    expected = (len(sent), sum(len(text.encode()) for _, text in sent), len(whole))
    assert count_whole(whole + partial, 1000, is_masked=is_masked) == expected


@pytest.mark.parametrize(
    "last",
    [
        frame(PING, b""),
        b"\x01\x00",
        b"\x80\x00",
        b"\xc1\x00",
        frame(TEXT, b"\xff"),
        frame(TEXT, b"x" * 1001),
        frame(TEXT, b"x", MASK),
        b"\x81\x7e\x00\x01x",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01x",
        b"\x83\x00",
    ],
)
def test_what_is_not_whole_and_valid_is_left_to_the_reader(last):
    first = frame(TEXT, b"first")
    assert count_whole(first + last, 1000, is_masked=False) == (1, 5, len(first))


def test_so_many_messages_are_counted_at_once():
    assert count_whole(frame(TEXT, b"") * 2000, 1000, is_masked=False)[0] == COUNTED_MAX


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x00", PROTOCOL_ERROR),
        (b"\x83\x00", PROTOCOL_ERROR),
        (b"\x80\x00", PROTOCOL_ERROR),
        (b"\x01\x00\x81\x00", PROTOCOL_ERROR),
        (b"\x09\x00", PROTOCOL_ERROR),
        (b"\x89\x7e\x00\x80", PROTOCOL_ERROR),
        (frame(TEXT, b"x", MASK), PROTOCOL_ERROR),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\x03\xe9", TOO_LARGE),
        (b"\x01\x7e\x03\xe8" + b"x" * 1000 + b"\x80\x01", TOO_LARGE),
        (frame(TEXT, b"\xff"), INVALID_DATA),
    ],
)
def test_a_fault_is_said_before_more_is_read_and_stays(data, code):
    reader = FrameReader(1000, is_masked=False)
    reader.feed(data)
    for _ in range(2):
        with pytest.raises(FrameFault) as raised:
            read(reader)
        assert raised.value.code == code
        reader.feed(frame(TEXT, b"later"))


def test_fragments_make_one_message_with_control_frames_between():
    reader = FrameReader(1000, is_masked=False)
    reader.feed(b"\x01\x02\xe2\x82" + frame(PING, b"p") + b"\x80\x01\xac")
    assert read(reader) == [(CONTINUATION, b""), (PING, b"p"), (TEXT, "€")]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4999, "why €"), (NO_CODE, "")])
def test_a_close_is_read_as_it_was_written(code, reason):
    assert closed_with(close_payload(code, reason)) == (code, reason)


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x00\x01", 1002), (b"\x03\xe8\xff", 1007), (b"\x13\x88", 1002)],
)
def test_a_close_that_is_none_is_a_fault(payload, code):
    reader = FrameReader(1000, is_masked=False)
    reader.feed(frame(CLOSE, payload))
    with pytest.raises(FrameFault) as raised:
        closed_with(reader.next()[1])
    assert raised.value.code == code
