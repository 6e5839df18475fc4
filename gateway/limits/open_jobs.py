"""Jobs not yet ended, counted over all processes: each holds a place in the limit store until it ends.

A place is taken before the job is stored, and freed by :mod:`jobs.intake` when the job ends. Places that a failure of a
process or of the store left behind are found when a limit is reached: then a sample of their jobs is looked up. While
the store is unavailable, each process counts the jobs that it admits, and adds them to the store later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice

from gateway.limits.store import LimitStore
from gateway.limits.tallies import LimitUsage
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit

logger = logging.getLogger(__name__)

LIFE_S = 8 * 24 * 3600.0
"""The lifetime of a place: that of the job's document in NATS."""
SAMPLE = 32
"""How many jobs are looked up at once, chosen at random."""
SAMPLE_EVERY_S = 0.5
BEING_STORED_S = 10.0
"""The job of a younger place may not be stored yet."""
RETRY_S = 5.0
"""Retry-After of a refusal: when a job will end cannot be known."""
BATCH = 500
"""How many places, or keys, are sent to the store at once."""

IsOpen = Callable[[Sequence[str]], Awaitable[Mapping[str, bool | None]]]
"""Returns for each job whether it is open, None if there is no such job. Raises Refused where jobs cannot be read."""


async def cannot_look_up(_: Sequence[str]) -> Mapping[str, bool | None]:
    """Raise Refused: for a process without jobs, which never frees a place that was left behind."""
    raise Refused(Reason.OVERLOADED)


class Place(Enum):
    """How a job was admitted."""

    SHARED = "counted with those of all processes"
    ALONE = "counted by this process alone: the store is unavailable"
    BEYOND = "the limit would have refused it, but is in shadow mode"


class OpenJobs:
    """The places of open jobs, as one process knows them."""

    def __init__(self, store: LimitStore, is_open: IsOpen = cannot_look_up) -> None:
        self._store = store
        self._is_open = is_open
        self._open: dict[str, int] = {}
        self._sampled_at: dict[str, float] = {}
        self._alone: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Jobs that are not in the store yet, and when they were admitted. Never more than the limit's amount."""

    async def take_all(
        self, places: Iterable[tuple[Limit, str]], job_id: str, consumer: str, usage: LimitUsage
    ) -> list[str]:
        """Take a place under each of these limits, or none, and return their keys. Raises Refused."""
        taken: list[str] = []
        for limit, key in places:
            try:
                place = await self.take(limit, key, job_id)
            except Refused:
                usage.refused(limit, consumer)
                for before in taken:
                    self.drop(before, job_id)
                raise
            taken.append(key)
            if place is Place.BEYOND:
                usage.shadowed(limit, consumer)
            elif place is Place.ALONE:
                usage.let_through(limit, consumer, 1)
        return taken

    async def take(self, limit: Limit, key: str, job_id: str) -> Place:
        """Take a place. Taking it again for the same job has no further effect. Raises Refused."""
        is_shadow = limit.mode == "shadow"
        for is_last in (False, True):
            taken = await self._store.take_slot(key, job_id, limit.amount, life_s=LIFE_S, forced=is_shadow)
            if taken is None:
                return await self._take_alone(limit, key, job_id)
            is_taken, others = taken
            self._open[key] = others + is_taken
            if others < limit.amount:
                return Place.SHARED
            if is_last or not await self._frees_some(key):
                break
        return _beyond(limit)

    async def _take_alone(self, limit: Limit, key: str, job_id: str) -> Place:
        if limit.fail == "closed" and limit.mode != "shadow":
            wait_s = max(1.0, self._store.pause_left_s)
            raise Refused(Reason.OVERLOADED, "Open jobs cannot be counted at this moment.", retry_after_s=wait_s)
        now = time.monotonic()
        self._alone[key].pop(job_id, None)
        if len(self._alone[key]) >= limit.amount and self._may_sample(key, now):
            # The oldest jobs are the likeliest to have ended.
            oldest = {name: now - at for name, at in islice(self._alone[key].items(), SAMPLE)}
            for ended in await self._ended(oldest):
                self._alone[key].pop(ended, None)
        if len(self._alone[key]) >= limit.amount:
            return _beyond(limit)
        self._alone[key][job_id] = now
        return Place.ALONE

    def drop(self, key: str, job_id: str) -> None:
        """Free a place, without waiting."""
        self._alone.get(key, {}).pop(job_id, None)
        self._open[key] = max(0, self._open.get(key, 0) - 1)
        self._store.drop_slot(key, job_id)

    async def refresh(self, key: str) -> None:
        """Count the places, and free those in a sample whose job has ended."""
        found = await self._store.sample_slots(key, LIFE_S, SAMPLE)
        if found is None:
            return
        count, ages_s = found
        self._open[key] = count
        ended = await self._ended(ages_s)
        if ended:
            self._open[key] = count - len(ended)
            await self._store.drop_slot(key, *ended)

    async def _ended(self, ages_s: Mapping[str, float]) -> list[str]:
        """Return which of these jobs have ended, or were never stored; none where jobs cannot be read."""
        try:
            is_open = await self._is_open([*ages_s])
        except Refused:
            logger.warning("open jobs are not looked up: their store does not answer")
            return []
        return [
            job_id for job_id, age_s in ages_s.items()
            if is_open[job_id] is False or (is_open[job_id] is None and age_s > BEING_STORED_S)
        ]  # fmt: skip

    async def _frees_some(self, key: str) -> bool:
        """Look up a sample, at most every ``SAMPLE_EVERY_S``; return whether that freed a place."""
        if not self._may_sample(key, time.monotonic()):
            return False
        before = self._open.get(key, 0)
        await self.refresh(key)
        return self._open.get(key, 0) < before

    def _may_sample(self, key: str, now: float) -> bool:
        if now - self._sampled_at.get(key, float("-inf")) < SAMPLE_EVERY_S:
            return False
        self._sampled_at[key] = now
        return True

    async def share(self) -> None:
        """Add the jobs admitted without the store to it. Those that have ended meanwhile are found as others are."""
        for key in [*self._alone]:
            jobs = self._alone[key]
            while some := [*islice(jobs, BATCH)]:
                if await self._store.renew_slots(key, some, life_s=LIFE_S) is None:
                    return
                for job_id in some:
                    jobs.pop(job_id, None)
            self._alone.pop(key, None)

    async def recount(self) -> None:
        """Refresh the counts above zero: this process is not notified when a job ends."""
        keys = [key for key, count in self._open.items() if count]
        for start in range(0, len(keys), BATCH):
            await asyncio.gather(*(self._recount(key) for key in keys[start : start + BATCH]))

    async def _recount(self, key: str) -> None:
        count = await self._store.renew_slots(key, (), life_s=LIFE_S)
        if count is not None and key in self._open:
            self._open[key] = count

    def count(self, key: str) -> int:
        """Return how many are open, as far as is known here."""
        return len(self._alone.get(key, ())) or self._open.get(key, 0)

    def forget(self, key: str) -> None:
        """Forget what is known of a key."""
        self._open.pop(key, None)
        self._sampled_at.pop(key, None)


def _beyond(limit: Limit) -> Place:
    """Raise Refused, unless the limit is in shadow mode."""
    if limit.mode == "shadow":
        return Place.BEYOND
    raise Refused(
        Reason.RATE_LIMITED,
        f"The limit of {limit.amount:g} open jobs is reached: wait until one has ended, or cancel one.",
        retry_after_s=RETRY_S,
        policies=(limit.name,),
    )
