"""The fragments of one message while they come (RFC 6455 5.4), in memory that the size of the message bounds."""

from __future__ import annotations

from gateway.refusals import Reason, Refused

EMPTY_MAX = 10_000
"""Empty ones add nothing to the size of their message, so that bounds neither their number nor their cost."""
APART_MAX = 1024
"""Kept apart; more are joined: many small ones would take several times their size."""


class Fragments:
    """What has come of a message that is not whole."""

    __slots__ = ("_empty", "_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._empty = 0
        self.size = 0
        """Bytes so far; whoever reads frames bounds them before they are added."""

    def add(self, part: bytes) -> None:
        """Keep one more. Raises Refused ``too-large`` for empty ones without end."""
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
        """Give all that was kept and keep nothing."""
        whole = b"".join(self._parts)
        self._parts, self._empty, self.size = [], 0, 0
        return whole
