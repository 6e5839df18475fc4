"""The interface of a lab: a running broker, as the tests of connectors see it."""

from __future__ import annotations

import uuid


class Lab:
    """A running broker. ``put`` and ``got`` speak of (data, headers); names are fresh for each test."""

    type = ""
    can_restart = True
    is_source = True
    is_ordered = True
    keeps_ids = True
    """Sets message ids, so that a redelivered message is stored once."""
    secrets: dict[str, str] = {}  # noqa: RUF012
    bound_bytes = 0
    """What ``bind`` makes the most that one message may hold; 0: it cannot."""

    def __init__(self, folder):
        self.name = f"t{uuid.uuid4().hex[:10]}"

    def fresh(self):
        self.name = f"t{uuid.uuid4().hex[:10]}"

    def start(self): ...

    def stop(self): ...

    async def prepare(self):
        """Make what a connector expects to be there."""
