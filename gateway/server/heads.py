"""A request's head, once it is complete: its target, and what is wrong with it (RFC 9112 3.2, 6.1; RFC 6455 4.1)."""

from __future__ import annotations

import httptools

from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers
from gateway.wire.host import has_valid_host

VERSIONS = frozenset({"1.1", "1.0"})


def fault_of_head(version: str, target: bytes, *, hosts: int) -> str:
    """Return what is wrong with a head that has this many ``Host`` headers, or an empty text."""
    if version == "1.1" and hosts == 1 and target[:1] == b"/" and b"#" not in target:
        return ""
    if version not in VERSIONS:
        return "it is not HTTP/1.1"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return "it needs one Host"
    if b"#" in target:
        return "its target has a fragment"
    return "" if has_valid_host(target) else "its target has no valid host"


def fault_of_old_head(headers: Headers, *, upgrade: bytes | None) -> str:
    """Return what HTTP/1.1 has and this head of HTTP/1.0 must not have, or an empty text."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return "HTTP/1.0 has no Transfer-Encoding"
    return "a WebSocket needs HTTP/1.1" if upgrade == b"websocket" else ""


def target_parts(url: bytes) -> tuple[bytes, bytes]:
    """Return the path and the query of a request target. The host of an absolute form is ignored."""
    if url[:1] == b"/":
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""


def has_empty_query(url: bytes) -> bool:
    """Return whether a request target ends in a bare ``?``, with nothing for a query."""
    return url[-1:] == b"?" and url.index(b"?") == len(url) - 1


def malformed(what: str) -> Refused:
    """Return the refusal of a request that cannot be read."""
    return Refused(Reason.INVALID_REQUEST, f"The request is malformed: {what}.", cause="malformed-request")
