"""W3C Trace Context (Recommendation, 23 November 2021): taken over from callers, and passed on with their work.

The gateway records no spans, so it passes a caller's context on as it is (section 4.3). What cannot be read is dropped,
its ``tracestate`` with it, and a new trace stands in for it (section 4.2).
"""

from __future__ import annotations

import random
import re

from gateway.call import Call
from gateway.wire.header_fields import Headers

TRACESTATE_MAX_CHARS = 512
MEMBERS_MAX = 32
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"(?:{_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_SAMPLED = "01"
_KNOWN_FLAGS = 0x01


def taken(traceparent: str) -> str | None:
    """Give a traceparent as we pass it on; None where it is none. A later version is read as far as this one goes."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, ids, flags, more = found.groups()
    if version == "00":
        return None if more else traceparent
    return f"00-{ids}-{int(flags, 16) & _KNOWN_FLAGS:02x}"


def state(tracestate: str | None) -> str | None:
    """Give a tracestate as we pass it on; None where it is not one, or too long to be carried by every door."""
    if not tracestate or len(tracestate) > TRACESTATE_MAX_CHARS:
        return None
    members = [member.strip(" \t") for member in tracestate.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if not members or len(members) > MEMBERS_MAX or len(keys) < len(members):
        return None
    return ",".join(members) if all(map(_MEMBER.fullmatch, members)) else None


def started() -> str:
    """Begin a trace. Its ids need not be hard to guess, so no system call is made for them."""
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-{_SAMPLED}"


def begin(call: Call) -> None:
    """Take over the context of a request that has a ``traceparent``; its headers are then as they are passed on."""
    given = [value.decode("latin-1") for name, value in call.headers if name == b"traceparent"]
    states = [value.decode("latin-1") for name, value in call.headers if name == b"tracestate"]
    call.traceparent = taken(given[0].strip()) if len(given) == 1 else None
    call.tracestate = state(",".join(states)) if call.traceparent else None
    call.traceparent = call.traceparent or started()
    if given != [call.traceparent] or (states and states != [call.tracestate]):
        call.headers = [header for header in call.headers if header[0] not in (b"traceparent", b"tracestate")]
        call.headers += headers(call.traceparent, call.tracestate)


def start(call: Call) -> None:
    """Begin a trace for a request that came without one."""
    call.traceparent = started()
    call.headers = [*call.headers, *headers(call.traceparent, None)]


def headers(traceparent: str, tracestate: str | None) -> Headers:
    """Give the headers that carry a context."""
    found = [(b"traceparent", traceparent.encode())]
    return [*found, (b"tracestate", tracestate.encode())] if tracestate else found


def of_event(call: Call, given: str | None, tracestate: str | None) -> tuple[str | None, str | None]:
    """Give the context of an event: its own where it names one, else that of the call that it came with."""
    if given is None:
        return call.traceparent, call.tracestate
    if (traceparent := taken(given)) is not None:
        return traceparent, state(tracestate)
    return (call.traceparent, call.tracestate) if call.traceparent else (started(), None)
