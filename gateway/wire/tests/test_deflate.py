"""permessage-deflate (RFC 7692): what is agreed on, beside another implementation, and what inflating may cost."""

import contextlib
import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from gateway.wire.deflate import COMPRESSED_MIN_BYTES, WIDEST, NotDeflated, agreed, compressed, inflated
from gateway.wire.websocket import (
    BINARY,
    COMPRESSED,
    INVALID_DATA,
    PING,
    PROTOCOL_ERROR,
    TEXT,
    TOO_LARGE,
    FrameFault,
    FrameReader,
    compressed_message,
    frame,
)

BOTH = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MOST = 64 * 1024
TEXTS = st.text(max_size=3000) | st.text("ab", min_size=200, max_size=9000)


def offers(*values):
    return agreed([(b"host", b"gateway"), *((b"sec-websocket-extensions", value.encode()) for value in values)])


@pytest.mark.parametrize(
    ("offer", "extra", "bits"),
    [
        ("permessage-deflate", b"", 15),
        ("permessage-deflate; client_max_window_bits", b"", 15),
        ("permessage-deflate;client_max_window_bits=10;client_no_context_takeover", b"", 15),
        ("permessage-deflate; server_no_context_takeover", b"", 15),
        ("permessage-deflate; server_max_window_bits=15", b"; server_max_window_bits=15", 15),
        ("permessage-deflate; server_max_window_bits = 9", b"; server_max_window_bits=9", 9),
        ('permessage-deflate; server_max_window_bits="10"', b"; server_max_window_bits=10", 10),
        ('x-unknown; a="1,2;3", permessage-deflate', b"", 15),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", b"", 15),
        ("permessage-deflate; x, permessage-deflate; server_max_window_bits=11", b"; server_max_window_bits=11", 11),
    ],
)  # fmt: skip
def test_the_first_offer_that_can_be_accepted_is(offer, extra, bits):
    assert offers(offer) == (BOTH + extra, bits)


def test_offers_of_several_headers_are_one_list():
    assert offers("x-unknown", "permessage-deflate") == (BOTH, 15)


@pytest.mark.parametrize(
    "offer",
    [
        "", ",", ";;", "x-webkit-deflate-frame", "permessage-deflate2", "permessage-deflate; ",
        "permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=7", "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; server_no_context_takeover=1", "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=9", "permessage-deflate; mine",
        'permessage-deflate; server_max_window_bits="9', "permessage-deflate; client_max_window_bits=9\u00e9",
        "permessage-deflate" + ", permessage-deflate; unknown" * 100,
    ],
)  # fmt: skip
def test_other_offers_are_declined(offer):
    assert offers(offer) is None


@given(st.binary(max_size=200))
def test_no_offer_raises(offer):
    agreed([(b"sec-websocket-extensions", offer)])


def read(reader, data):
    reader.feed(data)
    items = []
    while (item := reader.next()) is not None:
        items.append(item)
    return items


def inflating(most=MOST):
    reader = FrameReader(most, is_masked=False)
    reader.is_inflating = True
    return reader


@given(TEXTS, st.sampled_from([9, 10, 12, 15]))
def test_another_implementation_reads_what_is_compressed_and_writes_what_is_inflated(text, bits):
    theirs = PerMessageDeflate(True, True, bits, bits)
    message = compressed_message(TEXT, text.encode(), bits)
    assert read(inflating(), message) == [(TEXT, text)]
    if message[0] & COMPRESSED:
        payload = message[2 if message[1] < 126 else 4 :]
        assert theirs.decode(Frame(Opcode.TEXT, payload, True, True, False, False)).data == text.encode()
    written = bytes(theirs.encode(Frame(Opcode.BINARY, text.encode())).data)
    assert read(inflating(), frame(BINARY | COMPRESSED, written)) == [(BINARY, text.encode())]


def test_what_is_short_or_does_not_shrink_is_sent_as_it_is():
    for payload in (b"x" * (COMPRESSED_MIN_BYTES - 1), os.urandom(1000)):
        assert compressed_message(BINARY, payload) == frame(BINARY, payload)


@pytest.mark.parametrize("size", [128, 129, 256, 257, 511, 512, 513, 32_768, 32_769, 65_536, 200_000])
def test_a_window_of_the_size_of_the_message_is_enough(size):
    payload = os.urandom(size // 2) * 2 + b"x" * (size % 2)
    assert inflated(compressed(payload), size) == payload
    assert inflated(compressed(payload, 9), size) == payload


def test_a_bomb_is_inflated_no_further_than_a_message_may_have_bytes():
    bomb = compressed(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    try:
        with pytest.raises(FrameFault) as fault:
            read(inflating(1024 * 1024), frame(BINARY | COMPRESSED, bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fault.value.code == TOO_LARGE
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize(("size", "is_read"), [(MOST, True), (MOST + 1, False)])
@pytest.mark.parametrize("make", [bytes, os.urandom])
def test_a_message_may_have_as_many_bytes_as_one_that_is_not_compressed(size, is_read, make):
    message = frame(BINARY | COMPRESSED, compressed(payload := make(size)))
    if is_read:
        assert read(inflating(), message) == [(BINARY, payload)]
    else:
        with pytest.raises(FrameFault, match="too large"):
            read(inflating(), message)


def test_a_turn_counts_what_is_inflated():
    reader = inflating()
    message = frame(BINARY | COMPRESSED, compressed(bytes(MOST)))
    read(reader, message)
    assert reader.parsed_bytes == len(message) + MOST


def test_a_final_block_ends_the_message_and_nothing_but_padding_may_follow():
    final = bytes.fromhex("f348cdc9c90700")  # RFC 7692 7.2.3.4
    assert inflated(final + b"\x00", MOST) == inflated(final, MOST) == b"Hello"
    with pytest.raises(NotDeflated):
        inflated(final + final, MOST)


def fragments(payload, first):
    """Return a message in three fragments, the last one empty."""
    half = len(payload) // 2
    parts = [(first, payload[:half]), (0, payload[half:]), (0x80, b"")]
    return b"".join(bytes([bits]) + frame(0, part)[1:] for bits, part in parts)


def test_a_compressed_message_may_be_fragmented_and_control_frames_come_between():
    payload = compressed(b"hello " * 30)
    data = fragments(payload, TEXT | COMPRESSED)
    first = len(frame(0, payload[: len(payload) // 2]))
    items = read(inflating(), data[:first] + frame(PING, b"p") + data[first:])
    assert [item for item in items if item[0]] == [(PING, b"p"), (TEXT, "hello " * 30)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(PING | COMPRESSED, b""), PROTOCOL_ERROR),
        (frame(TEXT | 0x20, b""), PROTOCOL_ERROR),
        (frame(TEXT | COMPRESSED | 0x10, b""), PROTOCOL_ERROR),
        (bytes([TEXT, 0]) + frame(COMPRESSED, b""), PROTOCOL_ERROR),
        (frame(TEXT | COMPRESSED, b"\xff" * 20), INVALID_DATA),
        (frame(TEXT | COMPRESSED, compressed(b"\xff" * 200)), INVALID_DATA),
    ],
)
def test_a_malformed_compressed_message_is_a_fault(data, code):
    with pytest.raises(FrameFault) as fault:
        read(inflating(), data)
    assert fault.value.code == code


def test_a_compressed_message_is_a_fault_where_that_was_not_agreed_on():
    with pytest.raises(FrameFault) as fault:
        read(FrameReader(MOST, is_masked=False), frame(TEXT | COMPRESSED, compressed(b"x" * 200)))
    assert fault.value.code == PROTOCOL_ERROR


@given(st.binary(max_size=300))
def test_no_bytes_raise_but_as_not_deflated(data):
    with contextlib.suppress(NotDeflated):
        assert len(inflated(data, 1000)) <= 1001


def test_a_message_is_compressed_with_the_window_that_was_agreed_on():
    # The distance between the repeats fits no window of 512 bytes.
    payload = (block := os.urandom(2000)) + block
    assert len(compressed(payload, WIDEST)) < 2500 < len(compressed(payload, 9))
    assert zlib.decompressobj(-9).decompress(compressed(b"abc" * 1000, 9)) == b"abc" * 1000
