"""``request-size-limit``: how large a request's body may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import Policy, only
from gateway.refusals import Reason, Refused


class RequestSizeLimit(Policy):
    """Options: ``max_bytes``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("max_bytes",))
        max_bytes = options.get("max_bytes")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError("max_bytes is a whole number of bytes.")
        self._max_bytes = max_bytes

    def inbound(self, call: Call) -> None:
        """Refuse what announces too much, and stop reading what turns out to be too much."""
        announced = call.header(b"content-length")
        if announced is not None and int(announced) > self._max_bytes:
            raise Refused(Reason.TOO_LARGE, f"The body may hold at most {self._max_bytes} bytes.")
        if hasattr(call.peer, "body_max_bytes"):
            call.peer.body_max_bytes = self._max_bytes
