"""One of several processes does the work: a lease in NATS KV, renewed while held, free once its holder is gone."""

from __future__ import annotations

import time

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError

from gateway.link.nats import LEASE_S, LEASES_BUCKET

RENEW_S = LEASE_S / 5
SAFE_S = LEASE_S * 0.6
"""A lease that could not be renewed for so long is given up, well before another may have it."""


class Lease:
    """A lease by name. ``owner`` names the holder through its restarts: it has its own lease back at once."""

    def __init__(self, js: JetStreamContext, name: str, owner: str) -> None:
        self._js = js
        self._name = name
        self._owner = owner.encode()
        self._revision = 0
        self._held_until = float("-inf")

    @property
    def is_held(self) -> bool:
        """It is ours, and will be for a while."""
        return time.monotonic() < self._held_until

    async def renew(self) -> bool:
        """Take the lease, or keep it. Says whether it is held; where NATS is away it is, as long as that is safe."""
        asked_at = time.monotonic()
        try:
            bucket = await self._js.key_value(LEASES_BUCKET)
            if self._revision:
                self._revision = await bucket.update(self._name, self._owner, last=self._revision)
            else:
                self._revision = await self._taken()
        except KeyWrongLastSequenceError:
            self._revision, self._held_until = 0, float("-inf")
            return False
        except (NatsError, APIError, TimeoutError, OSError):
            return self.is_held
        if self._revision:
            self._held_until = asked_at + SAFE_S
        return self.is_held

    async def give_back(self) -> None:
        """Let another have it at once."""
        if self._revision:
            bucket = await self._js.key_value(LEASES_BUCKET)
            await bucket.purge(self._name)
            self._revision, self._held_until = 0, float("-inf")

    async def _taken(self) -> int:
        """Take a lease that is free, or that an earlier run of ours holds; 0 where another has it."""
        bucket = await self._js.key_value(LEASES_BUCKET)
        try:
            entry = await bucket.get(self._name)
        except KeyNotFoundError:
            return await bucket.create(self._name, self._owner)
        if entry.value != self._owner:
            return 0
        return await bucket.update(self._name, self._owner, last=entry.revision or 0)
