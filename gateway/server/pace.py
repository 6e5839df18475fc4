"""The pace of a request's body: whether it arrives fast enough, by arithmetic on instants."""

from __future__ import annotations

from gateway.config import Config


class Pace:
    """A body has to bring ``body_rate_floor_bytes_per_s``. What it brought before lets it pause, but not for long.

    Without that bound, a body of which all but the end was sent at once could be left unfinished for hours.
    """

    __slots__ = ("_bounds", "_counted_bytes", "_due_at")

    def __init__(self, bounds: Config, began_at: float) -> None:
        self._bounds = bounds
        self._due_at = began_at + bounds.body_rate_grace_s
        self._counted_bytes = 0

    def is_late(self, now: float, body_bytes: int, is_paused: bool) -> bool:
        """Return whether a body of which so many bytes have arrived is too slow.

        ``is_paused``: the gateway does not read it now, so that none can arrive.
        """
        bounds = self._bounds
        if is_paused:
            self._due_at = max(self._due_at, now + bounds.body_rate_grace_s)
            return False
        earned_s = (body_bytes - self._counted_bytes) / max(1, bounds.body_rate_floor_bytes_per_s)
        self._counted_bytes = body_bytes
        self._due_at = min(self._due_at + earned_s, now + max(bounds.body_stall_s, bounds.body_rate_grace_s))
        return now > self._due_at
