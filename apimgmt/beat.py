"""Celery's scheduler, tolerant of a clock that is set back."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler


class Scheduler(PersistentScheduler):
    """Treats a task whose last run lies in the future as if it had just run, instead of waiting for that instant."""

    def is_due(self, entry: Any) -> Any:
        """Return whether a task is due, and in how many seconds to check again."""
        now = entry.default_now()
        if entry.last_run_at > now:
            entry.last_run_at = now
        return super().is_due(entry)
