"""The refusal of a call whose event log cannot be reached."""

from __future__ import annotations

from gateway.refusals import Reason, Refused

RETRY_AFTER_S = 1.0


def log_unavailable() -> Refused:
    """Return the refusal for a log that does not answer in time."""
    return Refused(Reason.OVERLOADED, "The event log does not answer.", retry_after_s=RETRY_AFTER_S, cause="log-away")
