"""Translates the ``Destination`` of COPY and MOVE (RFC 4918 10.3), a URL of the caller's, into one of the upstream.

It is held to the route as the path of the request is: a caller moves nothing to where the route does not lead.
"""

from __future__ import annotations

import re

from gateway.handlers.proxy.own_names import OwnNames
from gateway.refusals import Reason, Refused
from gateway.snapshot.paths import normalised

METHODS = frozenset({"COPY", "MOVE"})
NAME = b"destination"
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*))?(/[^?#]*)")


def translated(value: bytes, names: OwnNames, beginning: str, upstream_scheme: str) -> bytes:
    """Return the destination as the upstream names it; one of another server is left for the upstream to refuse.

    ``beginning`` is what all of the route's paths begin with for the caller. Raises Refused ``invalid-request`` for a
    path of another beginning.
    """
    match = _URL.fullmatch(value.decode("latin-1").strip())
    if match is None:
        raise _outside()
    authority, path = match[1], match[2]
    if authority is not None and authority.lower() != names.public.host.lower():
        if names.is_upstream("", authority):
            raise _outside()
        return value
    if not normalised(path.encode("latin-1")).startswith(beginning) or not path.startswith(names.public.prefix):
        raise _outside()
    return f"{upstream_scheme}://{names.host}{names.upstream_prefix}{path[len(names.public.prefix) :]}".encode(
        "latin-1"
    )


def _outside() -> Refused:
    return Refused(Reason.INVALID_REQUEST, "The Destination is not one of this route.")
