"""``cors``: which pages of other origins may read the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import BadOption, Policy, only, texts
from gateway.wire.header_fields import Headers

_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s\x00-\x1f\x7f-\U0010ffff]+", re.ASCII)
"""As browsers send it: scheme, host and port, and nothing behind."""


class Cors(Policy):
    """Options: ``allowed_origins``, a list; ``*`` allows every origin."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("allowed_origins",))
        origins = texts(options, "allowed_origins")
        for number, origin in enumerate(origins):
            if not _ORIGIN.fullmatch(origin):
                raise BadOption(f"allowed_origins[{number}]", "Must be an origin, such as https://app.example, or *.")
        self._origins = frozenset(origins)

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Allow the caller's origin where it is one of those."""
        if call.origin is None:
            return headers
        kept = [header for header in headers if not header[0].startswith(b"access-control-")]
        allowing = self._allowing(call)
        # A page that cannot read Retry-After and RateLimit cannot keep to them.
        exposing = [(b"access-control-expose-headers", b"*")] if allowing else []
        return [*kept, *allowing, *exposing, (b"vary", b"Origin")]

    def preflight(self, call: Call) -> Headers:
        """Answer the browser's question ahead of a request."""
        allowing = self._allowing(call)
        if not allowing:
            return []
        methods = ", ".join(call.route.methods if call.route else ())
        asked = call.header(b"access-control-request-headers") or "Authorization, Content-Type"
        return [
            *allowing,
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", asked.encode("latin-1")),
            (b"access-control-max-age", b"600"),
        ]

    def _allowing(self, call: Call) -> Headers:
        if call.origin is None or not ("*" in self._origins or call.origin in self._origins):
            return []
        return [(b"access-control-allow-origin", call.origin.encode("latin-1"))]
