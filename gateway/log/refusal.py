"""The refusal for an error that JetStream reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from gateway.log.unavailable import log_unavailable
from gateway.refusals import Reason, Refused

logger = logging.getLogger(__name__)

_FULL = {10023, 10028, 10047, 10077}
"""JetStream error codes: insufficient resources, memory or storage; the store failed."""
_TOO_LARGE = 10054


def refusal(error: Mapping[str, Any]) -> Refused:
    """Return the refusal for an error of JetStream."""
    code = error.get("err_code")
    logger.warning("log: JetStream reports an error: %s", error)
    if code in _FULL or "no space" in str(error.get("description")):
        return Refused(Reason.STORAGE_FULL)
    if code == _TOO_LARGE:
        return Refused(Reason.TOO_LARGE, "The event is larger than the channel takes.")
    return log_unavailable()
