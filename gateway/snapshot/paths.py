"""Reads a request's path: decoded once, it is what is matched, and its bytes are what is forwarded.

Reserved characters and their percent-encodings are different data (RFC 3986 2.2), so an upstream receives what was sent
in place of a parameter byte for byte, in whichever spelling. What two parsers could read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from gateway.concurrency.short_cache import short_cache
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import CHANNEL_PREFIX, CHANNEL_SUFFIX, REGISTRY_PREFIX
from gateway.wire.dot_segments import DOT_SEGMENTS, has_dot_segment

KEPT_SLASH = "\x1f"
"""Stands for an encoded slash where a path is matched: it ends no segment. No path holds this character itself."""
_ENCODED_SLASH = re.compile(r"%2[fF]")
_UNSAFE, _NUL = re.compile(r"[\x00-\x1f\x7f\\]"), re.compile("\0")
_PLAIN = re.compile(r"[A-Za-z0-9/._-]*")
_MEANT_UNDER = (CHANNEL_PREFIX, REGISTRY_PREFIX + "/")
"""Encoded slashes are slashes there: a channel's address and a subject are one parameter."""
_SAFE = "/:@!$&'()*+,;=~"
_HEX = "[0-9A-Fa-f]"
_BYTE = f"%{_HEX}{{2}}"
_CHARACTER = re.compile(f"%[Ff]{_HEX}(?:{_BYTE}){{3}}|%[Ee]{_HEX}(?:{_BYTE}){{2}}|%[CcDd]{_HEX}{_BYTE}|{_BYTE}|.")
"""A character of a path as it was sent: one byte of ASCII, or the encoded bytes of one in UTF-8."""
PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


@short_cache(4_096)
def normalised(raw_path: bytes) -> str:
    """Percent-decode a path once. Raises Refused for a path that two parsers could read differently.

    Refused are a dot segment however it is disguised, a control character, invalid UTF-8 and a backslash. The address
    of a channel may hold all but invalid UTF-8 and NUL, dot segments with its slashes encoded: such a path is for the
    gateway itself, and never forwarded.
    """
    try:
        text = raw_path.decode("ascii")
        path = unquote_to_bytes(text).decode() if "%" in text else text
    except UnicodeDecodeError:
        raise malformed("is not UTF-8") from None
    if not path.startswith("/"):
        raise malformed("does not begin with a slash")
    is_for_channel = text.startswith(CHANNEL_PREFIX) and path.endswith(CHANNEL_SUFFIX)
    if _NUL.search(path) if is_for_channel else _UNSAFE.search(path):
        raise malformed("holds a control character or a backslash")
    if any(map(_is_dot_segment, text.split("/"))) if is_for_channel else has_dot_segment(path):
        raise malformed("holds a dot segment")
    return path


def _is_dot_segment(raw_segment: str) -> bool:
    """Return whether clients resolve a segment; how upstreams read it does not matter here."""
    return unquote_to_bytes(raw_segment).decode() in DOT_SEGMENTS


@short_cache(4_096)
def with_kept_slashes(raw_path: bytes) -> str:
    """Return a path as ``normalised`` does, but with ``KEPT_SLASH`` for each encoded slash that ends no segment."""
    text = raw_path.decode("ascii")
    if text.startswith(_MEANT_UNDER):
        return normalised(raw_path)
    return unquote_to_bytes(_ENCODED_SLASH.sub(KEPT_SLASH, text)).decode()


def as_sent(template: str, raw_path: bytes, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a path, which the template matched with these values, as they were sent."""
    sent = _CHARACTER.findall(raw_path.decode("ascii"))
    pieces = PARAMETER.split(template)
    values, at = {}, 0
    for text, name in zip(pieces[::2], pieces[1::2], strict=False):
        at += len(text)
        end = at + len(parameters[name])
        values[name] = "".join(sent[at:end])
        at = end
    return values


def channel_events_path(address: str) -> str:
    """Return the path of a channel's events, with encoded slashes where clients would change the address otherwise."""
    is_changed = not DOT_SEGMENTS.isdisjoint(address.split("/")) or "//" in f"/{address}/"
    return f"{CHANNEL_PREFIX}{quote(address, safe='' if is_changed else '/')}{CHANNEL_SUFFIX}"


def encoded(text: str) -> str:
    """Percent-encode a matched parameter for a path."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def malformed(what: str) -> Refused:
    """Return the refusal of a path."""
    return Refused(Reason.INVALID_REQUEST, f"The path {what}.", cause="path-malformed")
