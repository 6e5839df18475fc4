"""Sets the wall clock, as an operator or NTP does: the monotonic one goes on."""

from __future__ import annotations

import time
from typing import Any

import pytest

HOUR_S = 3600
EACH_WAY = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["an hour on", "an hour back"])


class Clock:
    def __init__(self, monkeypatch: Any) -> None:
        self._time = time.time
        self.set_by_s = 0.0
        monkeypatch.setattr(time, "time", lambda: self._time() + self.set_by_s)

    def jump(self, by_s: float) -> None:
        self.set_by_s += by_s
