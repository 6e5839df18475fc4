"""Celery's scheduler, which a clock that was set back does not put to sleep."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler


class Scheduler(PersistentScheduler):
    """Runs what is due; what last ran in the future is due as if it had just run."""

    def is_due(self, entry: Any) -> Any:
        """Say whether a task is due, and in how many seconds to look again."""
        now = entry.default_now()
        if entry.last_run_at > now:
            entry.last_run_at = now
        return super().is_due(entry)
