"""Wait until what was just written is published, so that its author finds it in force in the data plane."""

from __future__ import annotations

import time

from audit.models import Change

POLL_S = 0.01
APPLIED_S = 0.02
"""The time within which processes of the data plane apply what is published, unless they are very busy."""


def wait_until_published(within_s: float) -> bool:
    """Wait until every change so far is published; return False after ``within_s``, as NATS may be unavailable."""
    last = Change.objects.unpublished().values_list("pk", flat=True).last()
    if last is None:
        return True
    ends_at = time.monotonic() + within_s
    while Change.objects.unpublished().filter(pk__lte=last).exists():
        if time.monotonic() >= ends_at:
            return False
        time.sleep(POLL_S)
    time.sleep(APPLIED_S)
    return True
