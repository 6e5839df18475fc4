"""How bodies are charged to limits of bytes: whole where their length is said, else piece by piece (docs/limits.md)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.limits.budget import Counters

PIECE_MIN_BYTES = 1024
PIECE_OF_QUOTA_BYTES = 16 * 1024
PIECE_S = 0.25
"""A piece is what a limit lets through in so long: a delayed body flows, and does not come in jerks."""


def is_charged_whole(counters: Counters) -> bool:
    """Say whether a body of known length is charged at once, before any of it passes.

    So it is refused before it begins, or passes whole. A limit that delays lets it flow instead.
    """
    return bool(counters) and all(counter.limit.exceed != "delay" for counter in counters)


def pieces(part: bytes, counters: Counters) -> Iterator[bytes]:
    """Cut a part of a body to what the limits let through in a short time."""
    size = min((_piece_bytes(counter.rate, counter.size) for counter in counters), default=len(part))
    for at in range(0, len(part), max(1, size)):
        yield part[at : at + size]


def _piece_bytes(rate: float, size: float) -> int:
    if not rate:
        return PIECE_OF_QUOTA_BYTES
    return max(PIECE_MIN_BYTES, int(min(size, rate * PIECE_S)))
