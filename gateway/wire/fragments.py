"""Reassembly of a fragmented message (RFC 6455 5.4), in memory bounded by the size of the message."""

from __future__ import annotations

from gateway.refusals import Reason, Refused

EMPTY_MAX = 10_000
"""Limit of empty fragments, whose number and cost the size of the message does not bound."""
APART_MAX = 1024
"""Fragments kept separately before they are joined, as many small ones take several times their size."""


class Fragments:
    """The fragments received of an incomplete message."""

    __slots__ = ("_empty", "_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._empty = 0
        self.size = 0
        """Bytes so far. The reader of frames limits them before it adds a fragment."""

    def add(self, part: bytes) -> None:
        """Append a fragment. Raises Refused ``too-large`` for more than ``EMPTY_MAX`` empty ones."""
        if not part:
            self._empty += 1
            if self._empty > EMPTY_MAX:
                raise Refused(Reason.TOO_LARGE)
            return
        if len(self._parts) >= APART_MAX:
            self._parts = [b"".join(self._parts)]
        self._parts.append(part)
        self.size += len(part)

    def take(self) -> bytes:
        """Return the whole message and clear the fragments."""
        whole = b"".join(self._parts)
        self._parts, self._empty, self.size = [], 0, 0
        return whole
