"""What becomes of each line of a proxied head, judged alone, so that a line which comes again is not judged again.

The rules are those of :mod:`.heads`. A line whose meaning depends on others, or which nobody expects, is ``UNCLEAR``:
the head that holds it is parsed instead. Lines that may hold a secret are never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import IntEnum

from gateway.concurrency.room import make_room
from gateway.handlers.proxy.heads import (
    EXAMINED,
    NOT_PASSED_BACK,
    PASSED_IN_PART,
    cookies_of,
    is_identity,
    is_plain_name,
)
from gateway.handlers.proxy.own_names import REWRITTEN
from gateway.wire.host import is_host
from gateway.wire.traceparent import parse_traceparent

LINE_MAX_BYTES = 255
LINES_KEPT = 4096
"""Lines kept of each kind of head: at most some 2 MiB."""
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)"
)
_LENGTH = re.compile(rb"[1-9][0-9]{0,8}")


class Fate(IntEnum):
    """What a line is, besides something that passes on or does not."""

    PLAIN = 0
    """Nothing."""
    LENGTH = 1
    HOST = 2
    NAMES = 3
    """It says how the caller reached a proxy in front. There may be several."""
    CREDENTIAL = 4
    TRACE = 5
    CACHES = 6
    """It says who may keep the response."""
    ORIGIN = 7
    NAMES_UPSTREAM = 8
    """What it says of the upstream is rewritten for the caller. There may be several."""
    CHUNKED = 9
    UNCLEAR = 10


Judged = tuple[Fate, bytes]
"""What a line is, and how it passes on: empty if it does not."""

_STAYS = (Fate.PLAIN, b"")
_UNCLEAR = (Fate.UNCLEAR, b"")
_NAMING = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
                     b"x-forwarded-proto"})  # fmt: skip
_UNCLEAR_IN_REQUESTS = PASSED_IN_PART | {
    b"access-control-request-method", b"expect", b"http2-settings", b"tracestate", b"trailer", b"transfer-encoding",
    b"upgrade",
}  # fmt: skip
_UNCLEAR_IN_RESPONSES = frozenset({b"trailer", b"upgrade"})
_KEPT_OF_REQUESTS = frozenset(
    {
        b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control", b"connection",
        b"content-encoding", b"content-length", b"content-type", b"dnt", b"host", b"keep-alive", b"origin", b"pragma",
        b"priority", b"proxy-connection", b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest",
        b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"upgrade-insecure-requests", b"user-agent",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-requested-with",
    }
)  # fmt: skip
"""What clients repeat, and never a secret."""
_KEPT_OF_RESPONSES = frozenset(
    {
        b"accept-ranges", b"cache-control", b"connection", b"content-encoding", b"content-language", b"content-length",
        b"content-security-policy", b"content-type", b"date", b"expires", b"keep-alive", b"last-modified", b"pragma",
        b"referrer-policy", b"server", b"strict-transport-security", b"transfer-encoding", b"vary",
        b"x-content-type-options", b"x-frame-options", b"x-powered-by", b"x-xss-protection",
    }
)  # fmt: skip


class Lines(dict[bytes, Judged]):
    """The lines judged so far, by their bytes; ``lines[line]`` judges one that is new."""

    def __init__(self, judge: Callable[[bytes, bytes], Judged], kept: frozenset[bytes]) -> None:
        super().__init__()
        self._judge = judge
        self._kept = kept

    def __missing__(self, line: bytes) -> Judged:
        match = _FIELD.fullmatch(line)
        if match is None:
            return _UNCLEAR
        name = match[1].lower()
        judged = self._judge(name, match[2])
        if name in self._kept and len(line) <= LINE_MAX_BYTES:
            make_room(self, LINES_KEPT)
            self[line] = judged
        return judged

    def sort(self, lines: Iterable[bytes]) -> tuple[list[bytes], list[tuple[Fate, bytes]]]:
        """Return how the lines of a head pass on, in their order, and those of them that are more than plain."""
        passed, others = [], []
        for line in lines:
            fate, text = self[line]
            passed.append(text)
            if fate:
                others.append((fate, line))
        return passed, others


def request_lines() -> Lines:
    """Return a memory of lines of requests."""
    return Lines(_of_request, _KEPT_OF_REQUESTS)


def response_lines() -> Lines:
    """Return a memory of lines of responses."""
    return Lines(_of_response, _KEPT_OF_RESPONSES)


def field_of(line: bytes) -> tuple[bytes, bytes]:
    """Return the name in lower case and the value of a line that was judged."""
    name, _, value = line.partition(b":")
    return name.lower(), value.lstrip(b" \t")


def _of_request(name: bytes, value: bytes) -> Judged:
    special = _OF_REQUESTS.get(name)
    if special is not None:
        return special(value)
    if name in EXAMINED or is_identity(name) or not is_plain_name(name):
        return _STAYS
    return Fate.PLAIN, _line(name, value)


def _length(value: bytes) -> Judged:
    return (Fate.LENGTH, b"") if _LENGTH.fullmatch(value) else _UNCLEAR


def _host(value: bytes) -> Judged:
    return (Fate.HOST, b"") if is_host(value) else _UNCLEAR


def _trace(value: bytes) -> Judged:
    text = value.decode("latin-1")
    return (Fate.TRACE, _line(b"traceparent", value)) if parse_traceparent(text) == text else _UNCLEAR


def _cookie(value: bytes) -> Judged:
    cookies = cookies_of(value)
    return (Fate.PLAIN, _line(b"cookie", cookies)) if cookies else _STAYS


def _connection(value: bytes) -> Judged:
    return _STAYS if value.lower() == b"keep-alive" else _UNCLEAR


_OF_REQUESTS: dict[bytes, Callable[[bytes], Judged]] = {
    **dict.fromkeys(_UNCLEAR_IN_REQUESTS, lambda _: _UNCLEAR),
    **dict.fromkeys(_NAMING, lambda _: (Fate.NAMES, b"")),
    **dict.fromkeys((b"authorization", b"x-api-key"), lambda _: (Fate.CREDENTIAL, b"")),
    b"connection": _connection,
    b"content-length": _length,
    b"cookie": _cookie,
    b"host": _host,
    b"origin": lambda value: (Fate.ORIGIN, _line(b"origin", value)),
    b"traceparent": _trace,
}


def _of_response(name: bytes, value: bytes) -> Judged:
    if name == b"content-length":
        is_length = value == b"0" or _LENGTH.fullmatch(value)
        return (Fate.LENGTH, _line(name, value)) if is_length else _UNCLEAR
    if name == b"connection":
        return _connection(value)
    if name == b"transfer-encoding":
        return (Fate.CHUNKED, b"") if value.lower() == b"chunked" else _UNCLEAR
    if name in REWRITTEN:
        return Fate.NAMES_UPSTREAM, b""
    if name in _UNCLEAR_IN_RESPONSES or (name == b"content-type" and b"event-stream" in value.lower()):
        return _UNCLEAR
    if name in NOT_PASSED_BACK:
        return _STAYS
    return Fate.CACHES if name == b"cache-control" else Fate.PLAIN, _line(name, value)


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)
