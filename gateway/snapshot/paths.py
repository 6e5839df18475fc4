"""Normalises a request's path once: the path that is matched is the path that is forwarded."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from gateway.concurrency.short_cache import short_cache
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import CHANNEL_PREFIX, REGISTRY_PREFIX
from gateway.wire.dot_segments import has_dot_segment

_ENCODED_SLASH = re.compile(r"%2[fF]|%5[cC]")
_PLAIN = re.compile(r"[A-Za-z0-9/._-]*")
_MEANT_UNDER = (CHANNEL_PREFIX, REGISTRY_PREFIX + "/")
_SAFE = "/:@!$&'()*+,;=~"


@short_cache(4_096)
def normalised(raw_path: bytes) -> str:
    """Percent-decode a path once. Raises Refused for a path that two parsers could read differently.

    Refused are an encoded slash (except in a channel's address and a registry subject), a dot segment however it is
    disguised, a control character, invalid UTF-8 and a backslash.
    """
    try:
        text = raw_path.decode("ascii")
        path = unquote_to_bytes(text).decode() if "%" in text else text
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8") from None
    if not path.startswith("/"):
        raise _malformed("does not begin with a slash")
    if "%" in text and _ENCODED_SLASH.search(text) and not text.startswith(_MEANT_UNDER):
        raise _malformed("holds an encoded slash")
    if any(char < " " or char in "\x7f\\" for char in path):
        raise _malformed("holds a control character or a backslash")
    if has_dot_segment(path):
        raise _malformed("holds a dot segment")
    return path


def encoded(text: str) -> str:
    """Percent-encode a matched parameter for a path."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def _malformed(what: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, f"The path {what}.", cause="path-malformed")
