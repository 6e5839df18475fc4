"""How bodies are charged to limits of bytes: whole where their length is declared, else in pieces (docs/limits.md)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.limits.budget import Counters

PIECE_MIN_BYTES = 1024
PIECE_OF_QUOTA_BYTES = 16 * 1024
PIECE_S = 0.25
"""A piece is what a limit lets pass in this time, so that a delayed body flows evenly."""


def is_charged_whole(counters: Counters) -> bool:
    """Return whether a body of known length is charged before any of it passes, so that it passes whole or not at all.

    Where a limit delays, it is charged in pieces.
    """
    return bool(counters) and all(counter.limit.exceed != "delay" for counter in counters)


def pieces(part: bytes, counters: Counters) -> Iterator[bytes]:
    """Split a part of a body into pieces that the limits let pass in a short time."""
    size = min((_piece_bytes(counter.rate, counter.size) for counter in counters), default=len(part))
    for at in range(0, len(part), max(1, size)):
        yield part[at : at + size]


def _piece_bytes(rate: float, size: float) -> int:
    if not rate:
        return PIECE_OF_QUOTA_BYTES
    return max(PIECE_MIN_BYTES, int(min(size, rate * PIECE_S)))
