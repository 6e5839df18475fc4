"""Jobs not yet ended, counted over all processes: each has a place in the store from before it is kept until its end.

Who tells the end of a job (:mod:`jobs.intake`) gives its place back. What was lost on the way, because a process or the
store went away, is found when places are short: then some of their jobs are looked up where they are kept. While the
store is away, each process counts alone what it lets in, and tells the store when that is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice

from gateway.limits.store import Store
from gateway.limits.tallies import LimitUsage
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit

logger = logging.getLogger(__name__)

LIFE_S = 8 * 24 * 3600.0
"""No place outlives the job's document, which lies in NATS so long."""
LOOK_AT = 32
"""So many jobs are looked up at once, chosen by chance."""
LOOK_EVERY_S = 0.5
BEING_KEPT_S = 10.0
"""The job of a younger place may be on its way to where jobs are kept."""
RETRY_S = 5.0
"""Nobody knows when a job will end: a caller refused for want of a place is told to come back then."""

TOLD_AT_ONCE = 500
"""So many places, or keys, are told to the store in one go."""

IsOpen = Callable[[Sequence[str]], Awaitable[Mapping[str, bool | None]]]
"""Says of jobs whether they are open; None where there is no such job. Raises Refused where nobody can say."""


async def nobody_knows(_: Sequence[str]) -> Mapping[str, bool | None]:
    """Stand in where jobs are not kept: no place is ever found empty."""
    raise Refused(Reason.OVERLOADED)


class Place(Enum):
    """How a job was let in."""

    SHARED = "counted with those of all processes"
    ALONE = "counted by this process alone: the store is away"
    BEYOND = "the limit would have refused it, but is in shadow mode"


class OpenJobs:
    """The places of open jobs, as one process knows them."""

    def __init__(self, store: Store, is_open: IsOpen = nobody_knows) -> None:
        self._store = store
        self._is_open = is_open
        self._open: dict[str, int] = {}
        self._looked_at: dict[str, float] = {}
        self._alone: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Jobs that the store does not know of yet, and when they were let in. Never more than the limit's amount."""

    async def take_all(
        self, places: Iterable[tuple[Limit, str]], job_id: str, consumer: str, usage: LimitUsage
    ) -> list[str]:
        """Take a place under each of these limits, or none. Gives the keys of those taken. Raises Refused."""
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
        """Take a place. A job has one, however often it is taken. Raises Refused."""
        is_shadow = limit.mode == "shadow"
        for is_last in (False, True):
            taken = await self._store.take_slot(key, job_id, limit.amount, life_s=LIFE_S, forced=is_shadow)
            if taken is None:
                return await self._take_alone(limit, key, job_id)
            is_taken, others = taken
            self._open[key] = others + is_taken
            if others < limit.amount:
                return Place.SHARED
            if is_last or not await self._look_again(key):
                break
        return _beyond(limit)

    async def _take_alone(self, limit: Limit, key: str, job_id: str) -> Place:
        if limit.fail == "closed" and limit.mode != "shadow":
            wait_s = max(1.0, self._store.pause_left_s)
            raise Refused(Reason.OVERLOADED, "Open jobs cannot be counted at this moment.", retry_after_s=wait_s)
        now = time.monotonic()
        self._alone[key].pop(job_id, None)
        if len(self._alone[key]) >= limit.amount and self._may_look(key, now):
            # Those let in first are the likeliest to have ended.
            oldest = {name: now - at for name, at in islice(self._alone[key].items(), LOOK_AT)}
            for ended in await self._ended(oldest):
                self._alone[key].pop(ended, None)
        if len(self._alone[key]) >= limit.amount:
            return _beyond(limit)
        self._alone[key][job_id] = now
        return Place.ALONE

    def drop(self, key: str, job_id: str) -> None:
        """Give a place back. Never waits."""
        self._alone.get(key, {}).pop(job_id, None)
        self._open[key] = max(0, self._open.get(key, 0) - 1)
        self._store.drop_slot(key, job_id)

    async def look(self, key: str) -> None:
        """Count the places, without those whose job is found to have ended."""
        found = await self._store.some_slots(key, LIFE_S, LOOK_AT)
        if found is None:
            return
        count, ages_s = found
        self._open[key] = count
        ended = await self._ended(ages_s)
        if ended:
            self._open[key] = count - len(ended)
            await self._store.drop_slot(key, *ended)

    async def _ended(self, ages_s: Mapping[str, float]) -> list[str]:
        """Say which of these jobs have ended, or never came; none where nobody can say."""
        try:
            stands = await self._is_open([*ages_s])
        except Refused:
            logger.warning("open jobs are not looked up: where they are kept does not answer")
            return []
        return [
            job_id for job_id, age_s in ages_s.items()
            if stands[job_id] is False or (stands[job_id] is None and age_s > BEING_KEPT_S)
        ]  # fmt: skip

    async def _look_again(self, key: str) -> bool:
        """Look unless somebody did just now; says whether there is reason to try again."""
        if not self._may_look(key, time.monotonic()):
            return False
        before = self._open.get(key, 0)
        await self.look(key)
        return self._open.get(key, 0) < before

    def _may_look(self, key: str, now: float) -> bool:
        if now - self._looked_at.get(key, float("-inf")) < LOOK_EVERY_S:
            return False
        self._looked_at[key] = now
        return True

    async def share(self) -> None:
        """Tell the store, which is back, of the jobs let in meanwhile; those that ended are found as others are."""
        for key in [*self._alone]:
            jobs = self._alone[key]
            while some := [*islice(jobs, TOLD_AT_ONCE)]:
                if await self._store.renew_slots(key, some, life_s=LIFE_S) is None:
                    return
                for job_id in some:
                    jobs.pop(job_id, None)
            self._alone.pop(key, None)

    async def recount(self) -> None:
        """Ask how many are open now: nobody tells this process of a job's end."""
        known = [key for key, count in self._open.items() if count]
        for start in range(0, len(known), TOLD_AT_ONCE):
            await asyncio.gather(*(self._recount(key) for key in known[start : start + TOLD_AT_ONCE]))

    async def _recount(self, key: str) -> None:
        count = await self._store.renew_slots(key, (), life_s=LIFE_S)
        if count is not None and key in self._open:
            self._open[key] = count

    def count(self, key: str) -> int:
        """Say how many are open, as far as is known here."""
        return len(self._alone.get(key, ())) or self._open.get(key, 0)

    def forget(self, key: str) -> None:
        """Let go of what is known of a key whose caller has been away."""
        self._open.pop(key, None)
        self._looked_at.pop(key, None)


def _beyond(limit: Limit) -> Place:
    """Refuse, unless the limit is in shadow mode."""
    if limit.mode == "shadow":
        return Place.BEYOND
    raise Refused(
        Reason.RATE_LIMITED,
        f"The limit of {limit.amount:g} open jobs is reached: wait until one has ended, or cancel one.",
        retry_after_s=RETRY_S,
        policies=(limit.name,),
    )
