"""Keeps to the bounds of everything that is kept: a batch of each kind in turn, with pauses in which others write.

Several processes may do this at the same time: each batch finds what is beyond a bound, and removes it in one
transaction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client import Gauge

from accounts.retention import keep_tokens
from analytics.retention import keep_connections, keep_limits, keep_usage
from apimgmt.sqlite.free_pages import return_free_pages
from audit.retention import keep_changes
from events.letter_bounds import keep_bounds as keep_dead_letters
from jobs.retention import keep_jobs
from operators.batches import REMOVED
from operators.retention import keep_admin_log, keep_sessions

logger = logging.getLogger(__name__)

PAUSE_MIN_S, PAUSE_MAX_S = 0.005, 0.25
KEPT_AT = Gauge(
    "apimgmt_retention_kept_timestamp_seconds",
    "When everything was last found within its bounds.",
    registry=None,
)

Kinds = Mapping[str, Callable[[datetime], Iterator[int]]]
"""What is kept, and what brings it within its bounds: it yields how many rows or files each batch has removed."""
KINDS: Kinds = {
    "dead letters": keep_dead_letters,
    "connections": keep_connections,
    "usage": keep_usage,
    "limits": keep_limits,
    "jobs": keep_jobs,
    "audit": keep_changes,
    "sessions": keep_sessions,
    "tokens": keep_tokens,
    "admin log": keep_admin_log,
}
AFTERWARDS: Kinds = {"free pages": return_free_pages}
"""What is done once everything is within its bounds: pages that are freed before are used by other rows."""


def keep_bounds(
    now: datetime, *, within_s: float = float("inf"), kinds: Kinds = KINDS, afterwards: Kinds = AFTERWARDS
) -> dict[str, int]:
    """Remove what is beyond the bounds, and return how much of each kind.

    Stops after ``within_s``; the next call continues. A kind that fails is logged, and does not keep the others.
    """
    ends_at = time.monotonic() + within_s
    removed: Counter[str] = Counter()
    are_kept = _keep(kinds, now, ends_at, removed)
    if _keep(afterwards, now, ends_at, removed) and are_kept:
        KEPT_AT.set_to_current_time()
    if removed:
        logger.info("retention: removed %s", ", ".join(f"{count} of {what}" for what, count in removed.items()))
    return dict(removed)


def _keep(kinds: Kinds, now: datetime, ends_at: float, removed: Counter[str]) -> bool:
    """Bring kinds within their bounds, in turn, and return whether all are in time."""
    left = {what: keep(now) for what, keep in kinds.items()}
    has_failed = False
    while left and time.monotonic() < ends_at:
        for what in list(left):
            began_at = time.monotonic()
            try:
                count = next(left[what], None)
            except Exception:
                logger.exception("retention: %s could not be brought within bounds", what)
                has_failed, count = True, None
            if count is None:
                del left[what]
                continue
            removed[what] += count
            REMOVED.labels(what).inc(count)
            # As long as the batch took: whoever waited for the database writes now.
            time.sleep(min(max(time.monotonic() - began_at, PAUSE_MIN_S), PAUSE_MAX_S))
    return not left and not has_failed
