"""Room in what is remembered up to a number of entries."""

from __future__ import annotations

from itertools import islice
from typing import Any

SHARE = 8


def make_room(kept: dict[Any, Any], entries_max: int) -> None:
    """Forget the oldest eighth once there are ``entries_max`` entries: who uses more of them still finds most."""
    if len(kept) >= entries_max:
        for key in [*islice(kept, max(1, entries_max // SHARE))]:
            del kept[key]
