"""Open connections counted over all processes: each holds a slot in the limit store, kept alive by a heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from gateway.limits.store import LimitStore
from gateway.limits.tallies import LimitUsage
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit

BEAT_S = 8.0
BEAT_MAX_SLOTS = 500
BEAT_MAX_KEYS = 1000
RETRY_S = 5.0
"""Retry-After of a refusal: when a connection will close cannot be known."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one open connection under one limit."""

    key: str
    name: str


class OpenSlots:
    """The open slots of this process."""

    def __init__(self, store: LimitStore, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._numbers = count(1)
        self._held: dict[str, set[str]] = {}
        self._open: dict[str, int] = {}

    def new(self, key: str) -> Slot:
        """Return a slot with a name of its own, held by this process until it is dropped."""
        slot = Slot(key, f"{self._owner}:{next(self._numbers)}")
        self._held.setdefault(key, set()).add(slot.name)
        return slot

    async def take_all(self, limits: Iterable[tuple[Limit, str]], label: str, usage: LimitUsage) -> list[Slot]:
        """Take and return a slot under each limit of open connections, paired with its key in the store.

        All or none: if one limit refuses or the call is cancelled, the slots taken before are dropped. Raises Refused.
        """
        slots: list[Slot] = []
        try:
            for limit, key in limits:
                slots.append(self.new(key))
                await self._take_counted(slots[-1], limit, label, usage)
        except BaseException:
            for slot in slots:
                self.drop(slot)
            raise
        return slots

    async def _take_counted(self, slot: Slot, limit: Limit, label: str, usage: LimitUsage) -> None:
        try:
            if not await self.take(slot, limit):
                usage.shadowed(limit, label)
        except Refused:
            usage.refused(limit, label)
            raise

    async def take(self, slot: Slot, limit: Limit) -> bool:
        """Take the slot; return False where a shadow limit would have refused. After Refused, the caller drops it."""
        is_shadow = limit.mode == "shadow"
        taken = await self._store.take_slot(slot.key, slot.name, limit.amount, forced=is_shadow)
        if taken is None:
            return self._take_alone(slot, limit)
        is_taken, others = taken
        self._open[slot.key] = others + is_taken
        if others < limit.amount:
            return True
        if is_shadow:
            return False
        raise _full(limit)

    def _take_alone(self, slot: Slot, limit: Limit) -> bool:
        """Count this process alone: the store is unavailable. The next heartbeat adds the slot to it."""
        is_shadow = limit.mode == "shadow"
        if limit.fail == "closed" and not is_shadow:
            raise Refused(
                Reason.OVERLOADED,
                "Open connections cannot be counted at this moment.",
                retry_after_s=max(1.0, self._store.pause_left_s),
            )
        if len(self._held[slot.key]) <= limit.amount:
            return True
        if is_shadow:
            return False
        raise _full(limit)

    def drop(self, slot: Slot) -> asyncio.Future[Any] | None:
        """Free the slot, without waiting; return what is done once it is free on all processes.

        Where the store misses the command, the slot lapses after its lifetime.
        """
        held = self._held.get(slot.key)
        if held is None or slot.name not in held:
            return None
        held.discard(slot.name)
        if not held:
            del self._held[slot.key]
            self._open.pop(slot.key, None)
        elif slot.key in self._open:
            self._open[slot.key] -= 1
        return self._store.drop_slot(slot.key, slot.name)

    def drop_all(self) -> None:
        """Free all slots: this process ends."""
        for key, names in [*self._held.items()]:
            for name in [*names]:
                self.drop(Slot(key, name))

    async def beat(self) -> None:
        """Renew every held slot, also in a store that lost them, and refresh the counts of all known keys."""
        held = [(key, sorted(self._held.get(key, ()))) for key in {**self._held, **self._open}]
        for start in range(0, len(held), BEAT_MAX_KEYS):
            await asyncio.gather(*(self._renew(key, names) for key, names in held[start : start + BEAT_MAX_KEYS]))

    async def refresh(self, key: str) -> None:
        """Read how many slots are open on all processes, also for a key without one here."""
        open_now = await self._store.renew_slots(key, ())
        if open_now is not None:
            self._open[key] = open_now

    def forget(self, key: str) -> None:
        """Forget the count of a key that has no slot here."""
        if key not in self._held:
            self._open.pop(key, None)

    async def _renew(self, key: str, names: list[str]) -> None:
        if not names:
            await self.refresh(key)
        for start in range(0, len(names), BEAT_MAX_SLOTS):
            held = self._held.get(key, set())
            still = [name for name in names[start : start + BEAT_MAX_SLOTS] if name in held]
            if not still:
                continue
            open_now = await self._store.renew_slots(key, still)
            if open_now is not None and key in self._held:
                self._open[key] = open_now

    def count(self, key: str) -> int:
        """Return how many are open on all processes, as of the last answer of the store."""
        return max(self._open.get(key, 0), len(self._held.get(key, ())))


def _full(limit: Limit) -> Refused:
    return Refused(
        Reason.TOO_MANY_CONNECTIONS,
        f"At most {limit.amount:g} connections may be open at once.",
        retry_after_s=RETRY_S,
        policies=(limit.name,),
    )
