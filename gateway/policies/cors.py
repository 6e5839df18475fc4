"""``cors``: which pages of other origins may read the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only, strings
from gateway.policies.policy import Build, Policy
from gateway.wire.header_fields import Headers

_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s\x00-\x1f\x7f-\U0010ffff]+", re.ASCII)
"""As browsers send it: scheme, host and port, without a path."""


def cors(options: Mapping[str, Any]) -> Build:
    """Read the options: ``allowed_origins``, a list; ``*`` allows every origin."""
    allow_only(options, ("allowed_origins",))
    origins = strings(options, "allowed_origins")
    for number, origin in enumerate(origins):
        if not _ORIGIN.fullmatch(origin):
            raise BadOption(f"allowed_origins[{number}]", "Must be an origin, such as https://app.example, or *.")
    return lambda _: Cors(frozenset(origins))


class Cors(Policy):
    """Adds CORS headers to answers, and answers preflights."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Replace the CORS headers of the upstream by those for the caller's origin."""
        if call.origin is None:
            return headers
        kept = [header for header in headers if not header[0].startswith(b"access-control-")]
        allow_origin = self._allow_origin(call)
        # A page that cannot read Retry-After and RateLimit cannot comply with them.
        expose = [(b"access-control-expose-headers", b"*")] if allow_origin else []
        return [*kept, *allow_origin, *expose, (b"vary", b"Origin")]

    def preflight(self, call: Call) -> Headers:
        """Return the headers that answer a preflight, none where the origin is not allowed."""
        allow_origin = self._allow_origin(call)
        if not allow_origin:
            return []
        methods = ", ".join(call.route.methods if call.route else ())
        request_headers = call.header(b"access-control-request-headers") or "Authorization, Content-Type"
        return [
            *allow_origin,
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", request_headers.encode("latin-1")),
            (b"access-control-max-age", b"600"),
        ]

    def _allow_origin(self, call: Call) -> Headers:
        if call.origin is None or not ("*" in self._origins or call.origin in self._origins):
            return []
        return [(b"access-control-allow-origin", call.origin.encode("latin-1"))]
