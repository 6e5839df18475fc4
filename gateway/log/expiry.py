"""When an event expires: the CloudEvents extension ``expirytime``, from which on nobody receives the event."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gateway.wire.strict_json import fail

EXPIRY = "expirytime"
"""The attribute, an RFC 3339 instant (CloudEvents extension "Expiry Time"). MQTT 5 sends seconds instead."""
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
"""``datetime.fromisoformat`` accepts more than RFC 3339: weeks, dates without dashes, …"""


def require_instant(text: str, name: str) -> datetime:
    """Parse an attribute that is an RFC 3339 instant with its offset. Raises Refused ``invalid-payload``."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        fail(f"`{name}` is not an RFC 3339 instant.", f"/{name}")
    if not _RFC_3339.fullmatch(text):
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
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo is not None else None


def expiry_after(seconds: int, now: float) -> datetime:
    """Return the instant at which a Message Expiry Interval ends (MQTT 5, 3.3.2.3.3).

    It counts whole seconds: 0, with which no subscriber could ever receive the message, counts as 1.
    """
    return datetime.fromtimestamp(now + max(seconds, 1), UTC)
