"""The health of a connector: its state, what it passed on and what became dead letters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """The health of a connector, as operators see it."""

    state: str = "starting"
    """``starting``, ``running`` or ``failing``."""
    error: str = ""
    since: float = field(default_factory=time.time)
    passed: int = 0
    """Records or events passed on since the process started."""
    buried: int = 0
    last_at: float | None = None

    def report_state(self, state: str, error: str = "") -> None:
        """Record the state; ``since`` changes only with it."""
        if (state, error) != (self.state, self.error):
            self.state, self.error, self.since = state, error, time.time()

    def has_passed(self, count: int) -> None:
        """Count records or events that were passed on."""
        if count:
            self.passed += count
            self.last_at = time.time()
