"""Leader election: one process of several holds a lease in NATS KeyValue, which expires unless renewed."""

from __future__ import annotations

import hashlib
import socket
import time

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError

from gateway.config import Config
from gateway.link.nats import LEASE_S, LEASES_BUCKET

RENEW_S = LEASE_S / 5
SAFE_S = LEASE_S * 0.6
"""A leader that could not renew for this long steps down, well before another process can take the lease."""


class LeaderElection:
    """An election by name. ``owner`` outlives restarts, so that a restarted leader is the leader again at once."""

    def __init__(self, js: JetStreamContext, name: str, owner: str) -> None:
        self._js = js
        self._name = name
        self._owner = owner.encode()
        self._revision = 0
        self._leader_until = float("-inf")

    @property
    def is_leader(self) -> bool:
        """Whether this process is the leader; no other process can become it for at least ``LEASE_S - SAFE_S``."""
        return time.monotonic() < self._leader_until

    async def renew(self) -> bool:
        """Take or renew the lease and return whether this process is the leader.

        While NATS is unavailable a leader remains one for up to ``SAFE_S`` after its last renewal.
        """
        requested_at = time.monotonic()
        try:
            bucket = await self._js.key_value(LEASES_BUCKET)
            if self._revision:
                self._revision = await bucket.update(self._name, self._owner, last=self._revision)
            else:
                self._revision = await self._take()
        except KeyWrongLastSequenceError:
            self._revision, self._leader_until = 0, float("-inf")
            return False
        except (NatsError, APIError, TimeoutError, OSError):
            return self.is_leader
        if self._revision:
            self._leader_until = requested_at + SAFE_S
        return self.is_leader

    async def resign(self) -> None:
        """Release the lease, so that another process can take it at once."""
        if self._revision:
            bucket = await self._js.key_value(LEASES_BUCKET)
            await bucket.purge(self._name)
            self._revision, self._leader_until = 0, float("-inf")

    async def _take(self) -> int:
        """Take the lease if it is free or held by an earlier run of this owner; return its revision, or 0."""
        bucket = await self._js.key_value(LEASES_BUCKET)
        try:
            entry = await bucket.get(self._name)
        except KeyNotFoundError:
            return await bucket.create(self._name, self._owner)
        if entry.value != self._owner:
            return 0
        return await bucket.update(self._name, self._owner, last=entry.revision or 0)


def lease_owner(config: Config) -> str:
    """Return the owner that an installation takes leases as; a restarted process takes its own lease back at once."""
    return hashlib.sha256(f"{socket.gethostname()}\0{config.data_dir}".encode()).hexdigest()
