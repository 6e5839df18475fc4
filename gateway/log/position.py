"""Positions in a channel's log, as readers write them."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.log.catch_up import EARLIEST
from gateway.refusals import Reason, Refused

ID_MAX = 2**63 - 1
INSTANT_MAX_CHARS = 40
LOG_BEGINS_AT, LOG_ENDS_AT = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
"""JetStream counts nanoseconds in 64 bits: instants beyond would overflow into others."""


def parse_position(text: str) -> int | datetime | None:
    """Parse ``earliest``, ``latest``, an id or an RFC 3339 instant; None stands for ``latest``.

    Raises Refused ``invalid-request`` for anything else, before the log is queried.
    """
    if text == "latest":
        return None
    if text == "earliest":
        return EARLIEST
    if text.isascii() and text.isdigit() and len(text) <= len(str(ID_MAX)) and int(text) <= ID_MAX:
        return int(text)
    instant = _instant(text)
    if instant is not None:
        # Instants outside the range of the log are not queried.
        return EARLIEST if instant < LOG_BEGINS_AT else None if instant > LOG_ENDS_AT else instant
    raise Refused(
        Reason.INVALID_REQUEST,
        "A position is `earliest`, `latest`, an id or an RFC 3339 instant.",
        cause="invalid-position",
    )


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text.upper().replace(" ", "+")) if len(text) <= INSTANT_MAX_CHARS else None
    except ValueError:
        return None
    return instant if instant is not None and instant.tzinfo is not None else None
