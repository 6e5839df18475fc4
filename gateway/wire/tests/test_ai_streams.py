"""Streams of models: cut into lines or elements wherever their bytes are split, and ended by a refusal."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Reason, Refused
from gateway.wire.ai_dialects import Dialect
from gateway.wire.ai_streams import ArrayElements, EventStream, JsonLines, stream_of
from gateway.wire.event_stream import EVENT_MAX_BYTES

TEXTS = st.text(st.sampled_from('ab"\\[]{},\n é'), max_size=8)
OBJECTS = st.lists(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=3), max_size=5)
LIMITED = Refused(Reason.RATE_LIMITED, retry_after_s=2.5)


def cut(stream, body: bytes, sizes: list[int]) -> list[bytes]:
    units, at = [], 0
    for size in sizes:
        units += stream.cut(body[at : at + size])
        at += size
    return [*units, *stream.cut(body[at:]), stream.rest()]


@given(OBJECTS, st.lists(st.integers(0, 9), max_size=40), st.sampled_from([b",", b",\r\n", b" , "]))
def test_an_array_is_cut_into_its_elements_and_nothing_is_lost(objects, sizes, comma):
    body = b" [" + comma.join(orjson.dumps(each, option=orjson.OPT_INDENT_2) for each in objects) + b"]\n"
    stream = ArrayElements()
    units = cut(stream, body, sizes)
    assert b"".join(units) == body
    assert [orjson.loads(stream.data_of(unit)) for unit in units[:-1]] == objects


@given(OBJECTS, st.lists(st.integers(0, 9), max_size=40), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_are_cut_and_nothing_is_lost(objects, sizes, end):
    body = b"".join(orjson.dumps(each) + end for each in objects)
    stream = JsonLines()
    units = cut(stream, body, sizes)
    assert b"".join(units) == body
    assert [orjson.loads(stream.data_of(unit)) for unit in units if unit.strip()] == objects


def test_a_single_object_is_one_element():
    stream = ArrayElements()
    assert [*map(stream.data_of, stream.cut(b'{"candidates": [{"a": {}}]}'))] == [b'{"candidates": [{"a": {}}]}']
    assert not stream.is_between


@pytest.mark.parametrize("kind", [ArrayElements, JsonLines])
def test_what_is_too_large_passes_in_parts(kind):
    stream = kind()
    body = b'[{"a": "' + b"x" * EVENT_MAX_BYTES
    assert b"".join(stream.cut(body)) == body
    assert not stream.is_between
    units = stream.cut(b'"},{"b": "]"}\n')
    assert b"".join([*units, stream.rest()]) == b'"},{"b": "]"}\n'


def test_an_array_may_be_ended_between_two_elements():
    stream = ArrayElements()
    error = orjson.loads(stream.final(LIMITED, None, is_begun=False))
    assert error[0]["error"]["code"] == 429
    sent = b"".join(stream.cut(b'[{"a": 1},'))
    assert stream.is_between
    ended = orjson.loads(sent + stream.final(LIMITED, Dialect.GEMINI, is_begun=True))
    assert (ended[0], ended[1]["error"]["details"][0]["retryDelay"]) == ({"a": 1}, "2.500s")
    assert orjson.loads(sent + stream.final(Refused(Reason.DRAINING), None, is_begun=True)) == [{"a": 1}]


def test_lines_and_events_are_ended_in_their_shape():
    assert orjson.loads(JsonLines().final(LIMITED, None, is_begun=True))["error"] == LIMITED.detail
    assert EventStream().final(LIMITED, None, is_begun=True).startswith(b"retry: 2500\nevent: error\n")
    assert EventStream().final(LIMITED, Dialect.GEMINI, is_begun=True).startswith(b'data: {"error":')
    for stream in (JsonLines(), EventStream()):
        assert stream.final(Refused(Reason.DRAINING), Dialect.GEMINI, is_begun=True) == b""


@pytest.mark.parametrize(
    ("type_", "path", "status", "kind"),
    [
        (b"text/event-stream", "/x", 200, EventStream),
        (b"application/x-ndjson; charset=utf-8", "/api/chat", 200, JsonLines),
        (b"application/x-ndjson", "/api/chat", 500, None),
        (b"application/json", "/models/m:streamGenerateContent", 200, ArrayElements),
        (b"application/json", "/models/m:generateContent", 200, None),
    ],
)
def test_the_type_and_the_path_decide_on_the_kind(type_, path, status, kind):
    found = stream_of(status, [(b"content-type", type_)], (path,), is_metered=True)
    assert found is None if kind is None else type(found) is kind
    encoded = [(b"content-type", type_), (b"content-encoding", b"gzip")]
    assert stream_of(status, encoded, (path,), is_metered=True) is None
    unmetered = stream_of(status, [(b"content-type", type_)], (path,), is_metered=False)
    assert (unmetered is not None) == (kind is EventStream)
