"""``request-size-limit``: how large a request's body, or a message of a WebSocket, may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only
from gateway.policies.policy import Build, Policy
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers


def request_size_limit(options: Mapping[str, Any]) -> Build:
    """Read the options: ``max_bytes``."""
    allow_only(options, ("max_bytes",))
    max_bytes = options.get("max_bytes")
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
        raise BadOption("max_bytes", "Must be a whole number of bytes.")
    return lambda _: RequestSizeLimit(max_bytes)


class RequestSizeLimit(Policy):
    """Refuses bodies and messages of more than so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def inbound(self, call: Call) -> None:
        """Refuse a body that announces too many bytes, and bound the reading of one that announces nothing."""
        announced = call.header(b"content-length")
        if announced is not None and int(announced) > self._max_bytes:
            raise self._too_large("body")
        if call.peer is not None and call.protocol is not Protocol.WEBSOCKET:
            call.peer.body_max_bytes = self._max_bytes

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """In shadow mode, report a body whose size showed only once it had been read."""
        if self.is_shadow and call.header(b"content-length") is None and call.peer.bytes_in > self._max_bytes:
            raise self._too_large("body")
        return headers

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Raise Refused for a message that is too large."""
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        if size > self._max_bytes:
            raise self._too_large("message")
        return message

    def has(self, method: str) -> bool:
        """Return whether the method does anything: ``outbound`` does only in shadow mode."""
        return super().has(method) and (method != "outbound" or self.is_shadow)

    def _too_large(self, what: str) -> Refused:
        return Refused(Reason.TOO_LARGE, f"The {what} exceeds this route's limit of {self._max_bytes} bytes.")
