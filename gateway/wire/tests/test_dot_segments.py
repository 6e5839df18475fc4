"""No path that the gateway forwards has a dot segment, however the upstream reads it."""

import re
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.refusals import Refused
from gateway.snapshot.paths import normalised
from gateway.wire.dot_segments import has_dot_segment

DISGUISED = [
    "..;", "..;a=b", ".;", ".;x;y", "..%3B", "..%3ba=b", "%2e%2e", "%2E%2e;", ".%2e%3bx", "%252e%252e",
    "%252e%252e%253b", "%25252e.",
    "..%255c", "..%252f", "a%252f..%252fb", "a%255c..%255cb", "%c0%ae%c0%ae", "%25c0%25ae%25c0%25ae",
    "%25e0%2580%25ae.", "%25f0%2580%2580%25ae.",
    "%u002e%u002e", "%25u002e.", "%ef%bc%8e%ef%bc%8e", "%e2%80%a5", "..%20", "%20..", "..%09", "..%2509", "..%2500",
    "..%2500.html", "..%3fa", "..%23a", "..%253fa",
    "..\\", "..%5c", "..%5ca", ".%e2%80%8b.", "%2e%2e%2f", "..%c0%af", "..%25c0%25af", "%EF%BC%8F..", "..%ef%bc%9bx",
    "%2525252525252525252e.",
]  # fmt: skip


@pytest.mark.parametrize("segment", DISGUISED)
@pytest.mark.parametrize("path", ["/api/{}", "/api/{}/admin", "/{}/admin"])
def test_a_disguised_dot_segment_is_refused(segment, path):
    with pytest.raises(Refused) as caught:
        normalised(path.format(segment).encode())
    assert (caught.value.status, caught.value.cause) == (400, "path-malformed")


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/a;b=c/d;e", "/a%3Bb", "/v1.2/a..b", "/.well-known/x", "/...", "/a.", "/..a", "/a/.b;c",
        "/100%25", "/a%2520b", "/a%252fb",
        "/caf%C3%A9/%E2%80%A6", "/a%25zz", "/;x", "/;..", "/a;../b", "/%25",
    ],
)  # fmt: skip
def test_other_paths_pass(path):
    assert normalised(path.encode()) == unquote(path)


PIECES = [
    ".",
    "%2e",
    "%252E",
    ";",
    "%3b",
    "%253B",
    "/",
    "%2f",
    "%252f",
    "\\",
    "%5c",
    "%255c",
    "a",
    "%c0%ae",
    "%25c0%25ae",
    "%20",
    "%00",
    "%2500",
    "?",
    "%3f",
    "%",
]


def readings(target):
    """Yield the path of a request target as upstreams read it: decoded up to three times, parameters cut or not."""
    path = target
    for _ in range(4):
        for separators in ("/", r"[/\\]"):
            yield [re.sub(r";.*", "", segment) for segment in re.split(separators, path)]
            yield re.split(separators, path)
        path = unquote_to_bytes(path).replace(b"\xc0\xae", b".").decode("utf-8", "replace")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("..;/a")
def test_no_reading_of_what_is_forwarded_has_a_dot_segment(text):
    path = f"/api/{text}".partition("?")[0]
    try:
        normalised(path.encode())
    except Refused:
        return
    for segments in readings(path):
        assert not {".", ".."} & set(segments)


def test_decoding_ends():
    path = "a"
    for _ in range(200):
        path = quote("%" + path)
    assert has_dot_segment("/" + path)
    assert not has_dot_segment("/" + "%25" * 2_000)
