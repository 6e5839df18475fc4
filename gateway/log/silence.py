"""Whether the log replies: one silence is waited for once, not by each request after the other."""

from __future__ import annotations

import time

from gateway.log.unavailable import log_unavailable


class Silence:
    """When the log last replied, and whether requests are refused at once because it has been silent."""

    __slots__ = ("replied_at", "silent_s")

    def __init__(self) -> None:
        self.replied_at = float("-inf")
        self.silent_s = 0.0
        """How long the log was silent when a request was last refused; 0 from its next reply on.

        Meanwhile requests that would wait no longer are refused at once, and the log is probed.
        """

    def end(self) -> None:
        """Record a reply."""
        self.replied_at, self.silent_s = time.monotonic(), 0.0

    def refused_after(self, silence_s: float) -> None:
        """Record that a request was refused after that long without any reply since it was sent."""
        self.silent_s = max(self.silent_s, silence_s)

    def require_available(self, silence_s: float) -> None:
        """Raise Refused while the log is known to be silent for as long as the caller would wait for it."""
        if self.silent_s >= silence_s:
            raise log_unavailable()
