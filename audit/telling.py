"""Waits until the data plane has been told of what was just written, so that who wrote it finds it in force."""

from __future__ import annotations

import time

from audit.models import Change

LOOK_S = 0.01
APPLIED_S = 0.02
"""Processes have read what was published within so long, unless they are very busy."""


def told(within_s: float) -> bool:
    """Wait until every change so far has been published. False where the time is over: NATS may be away."""
    last = Change.objects.unpublished().values_list("pk", flat=True).last()
    if last is None:
        return True
    ends_at = time.monotonic() + within_s
    while Change.objects.unpublished().filter(pk__lte=last).exists():
        if time.monotonic() >= ends_at:
            return False
        time.sleep(LOOK_S)
    time.sleep(APPLIED_S)
    return True
