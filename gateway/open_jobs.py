"""Jobs not yet ended, counted over all processes: each has a place in the store from before it is kept until its end.

Who tells the end of a job (:mod:`jobs.intake`) gives its place back. What was lost on the way, because a process or the
store went away, is found when places are short: then some of their jobs are looked up where they are kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gateway.leases import Store
from gateway.refusals import Reason, Refused
from gateway.snapshot import Limit

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

IsOpen = Callable[[Sequence[str]], Awaitable[Mapping[str, bool | None]]]
"""Says of jobs whether they are open; None where there is no such job. Raises Refused where nobody can say."""


async def nobody_knows(_: Sequence[str]) -> Mapping[str, bool | None]:
    """Stand in where jobs are not kept: no place is ever found empty."""
    raise Refused(Reason.OVERLOADED)


class OpenJobs:
    """The places of open jobs, as one process knows them."""

    def __init__(self, store: Store, is_open: IsOpen = nobody_knows) -> None:
        self._store = store
        self._is_open = is_open
        self._open: dict[str, int] = {}
        self._looked_at: dict[str, float] = {}

    async def take(self, limit: Limit, key: str, job_id: str) -> float:
        """Take a place; gives by how much the limit is exceeded, which only one in shadow mode lets be.

        A job has one place, however often it is taken. Raises Refused.
        """
        is_shadow = limit.mode == "shadow"
        for is_last in (False, True):
            taken = await self._store.take_slot(key, job_id, limit.amount, life_s=LIFE_S, forced=is_shadow)
            if taken is None:
                return self._uncounted(limit)
            is_taken, others = taken
            self._open[key] = others + is_taken
            if others < limit.amount:
                return 0
            if is_last or not await self._look_again(key):
                break
        if not is_shadow:
            raise _full(limit)
        return others + 1 - limit.amount

    def _uncounted(self, limit: Limit) -> float:
        if limit.fail == "closed" and limit.mode != "shadow":
            wait_s = max(1.0, self._store.pause_left_s)
            raise Refused(Reason.OVERLOADED, "Open jobs cannot be counted at this moment.", retry_after_s=wait_s)
        return 0

    def drop(self, key: str, job_id: str) -> None:
        """Give a place back. Never waits."""
        self._open[key] = max(0, self._open.get(key, 0) - 1)
        self._store.drop_slot(key, job_id)

    async def look(self, key: str) -> None:
        """Count the places, without those whose job is found to have ended."""
        found = await self._store.some_slots(key, LIFE_S, LOOK_AT)
        if found is None:
            return
        count, ages_s = found
        self._open[key] = count
        try:
            stands = await self._is_open([*ages_s])
        except Refused:
            logger.warning("open jobs are not looked up: where they are kept does not answer")
            return
        ended = [
            job_id for job_id, age_s in ages_s.items()
            if stands[job_id] is False or (stands[job_id] is None and age_s > BEING_KEPT_S)
        ]  # fmt: skip
        if ended:
            self._open[key] = count - len(ended)
            await self._store.drop_slot(key, *ended)

    async def _look_again(self, key: str) -> bool:
        """Look unless somebody did just now; says whether there is reason to try again."""
        now = time.monotonic()
        if now - self._looked_at.get(key, float("-inf")) < LOOK_EVERY_S:
            return False
        self._looked_at[key] = now
        before = self._open.get(key, 0)
        await self.look(key)
        return self._open.get(key, 0) < before

    def count(self, key: str) -> int:
        """Say how many are open, as far as is known here."""
        return self._open.get(key, 0)

    def forget(self, key: str) -> None:
        """Let go of what is known of a key whose caller has been away."""
        self._open.pop(key, None)
        self._looked_at.pop(key, None)


def _full(limit: Limit) -> Refused:
    return Refused(
        Reason.RATE_LIMITED,
        f"At most {limit.amount:g} jobs may be open at once: wait until one has ended, or cancel one.",
        retry_after_s=RETRY_S,
        policies=(limit.name,),
    )
