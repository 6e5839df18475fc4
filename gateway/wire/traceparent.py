"""W3C Trace Context (Recommendation, 23 November 2021): ``traceparent`` and ``tracestate`` as text."""

from __future__ import annotations

import random
import re

TRACESTATE_MAX_CHARS = 512
MEMBERS_MAX = 32
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"(?:{_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_SAMPLED = "01"
_KNOWN_FLAGS = 0x01


def parse_traceparent(traceparent: str) -> str | None:
    """Return a traceparent as it is passed on, or None if it is invalid. Later versions are read as version 00."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, ids, flags, more = found.groups()
    if version == "00":
        return None if more else traceparent
    return f"00-{ids}-{int(flags, 16) & _KNOWN_FLAGS:02x}"


def parse_tracestate(tracestate: str | None) -> str | None:
    """Return a tracestate as it is passed on, or None if it is invalid or too long for some protocol to carry."""
    if not tracestate or len(tracestate) > TRACESTATE_MAX_CHARS:
        return None
    members = [member.strip(" \t") for member in tracestate.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if not members or len(members) > MEMBERS_MAX or len(keys) < len(members):
        return None
    return ",".join(members) if all(map(_MEMBER.fullmatch, members)) else None


def new_traceparent() -> str:
    """Return the traceparent of a new trace. Its ids need not be unpredictable, so no system call is made."""
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-{_SAMPLED}"
