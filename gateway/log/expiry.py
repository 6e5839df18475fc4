"""When an event expires: the CloudEvents extension ``expirytime``, from which on nobody receives the event."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from gateway.wire.strict_json import fail

EXPIRY = "expirytime"
"""The attribute, an RFC 3339 instant (CloudEvents extension "Expiry Time"). MQTT 5 sends seconds instead."""
INTERVAL_MAX_S = 2**32 - 1
"""The longest Message Expiry Interval, in four bytes."""
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:[0-5]\d)", re.ASCII)
"""``datetime.fromisoformat`` accepts more than RFC 3339: weeks, dates without dashes, offsets of 60 minutes, …"""


def require_instant(text: str, name: str) -> datetime:
    """Parse an attribute that is an RFC 3339 instant with its offset. Raises Refused ``invalid-payload``."""
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        fail(f"`{name}` is not an RFC 3339 instant.", f"/{name}")
    if not _RFC_3339.fullmatch(text.upper()):
        fail(f"`{name}` is not an RFC 3339 instant with its offset from UTC.", f"/{name}")
    return instant


def require_future(text: str, now: float) -> None:
    """Raise Refused ``invalid-payload`` for an expiry that is no instant, or one that has passed.

    An expired event would be stored and delivered to nobody, which its publisher would not notice.
    """
    if require_instant(text, EXPIRY).timestamp() <= now:
        fail("The event has expired: its `expirytime` has passed.", f"/{EXPIRY}")


def read_expiry(text: str | None) -> float | None:
    """Return a stored expiry in Unix seconds; None without one, or for one that was not stored by the gateway."""
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo is not None else None


def with_interval(attributes: Mapping[str, str], seconds: int, now: float) -> dict[str, str]:
    """Return attributes with the end of a Message Expiry Interval of MQTT 5 (3.3.2.3.3) as their expiry.

    They keep theirs if it is earlier, or is to be refused. The interval counts whole seconds: 0, with which no
    subscriber could ever receive the message, counts as 1.
    """
    ends_at = now + max(seconds, 1)
    present = read_expiry(attributes.get(EXPIRY))
    if EXPIRY in attributes and (present is None or present <= ends_at):
        return dict(attributes)
    ends = datetime.fromtimestamp(ends_at, UTC).isoformat(timespec="microseconds")
    return {**attributes, EXPIRY: ends.replace("+00:00", "Z")}


def seconds_left(expires_at: float, now: float) -> int:
    """Return the Message Expiry Interval of an event that is sent now: what is left of it (3.3.2.3.3)."""
    return min(max(0, math.ceil(expires_at - now)), INTERVAL_MAX_S)
