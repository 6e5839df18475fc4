"""``request-size-limit``: how large a request's body, or a message of a socket, may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.policy import BadOption, Policy, only
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane


class RequestSizeLimit(Policy):
    """Options: ``max_bytes``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("max_bytes",))
        max_bytes = options.get("max_bytes")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise BadOption("max_bytes", "A whole number of bytes.")
        self._max_bytes = max_bytes

    def inbound(self, call: Call) -> None:
        """Refuse what announces too much, and stop reading what turns out to be too much."""
        announced = call.header(b"content-length")
        if announced is not None and int(announced) > self._max_bytes:
            raise self._too_large("body")
        if call.peer is not None and call.protocol is not Protocol.WEBSOCKET:
            call.peer.body_max_bytes = self._max_bytes

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Tell, in shadow mode, of a body whose size only showed when it had been read."""
        if self.is_shadow and call.header(b"content-length") is None and call.peer.bytes_in > self._max_bytes:
            raise self._too_large("body")
        return headers

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """End a socket whose message is too large."""
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        if size > self._max_bytes:
            raise self._too_large("message")
        return message

    def has(self, part: str) -> bool:
        """Look at the end of a call in shadow mode alone."""
        return super().has(part) and (part != "outbound" or self.is_shadow)

    def _too_large(self, what: str) -> Refused:
        return Refused(Reason.TOO_LARGE, f"A {what} holds at most {self._max_bytes} bytes here.")
