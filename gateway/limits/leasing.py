"""Leases of this process: asks the store ahead of need, counts alone while it is away, returns what lies idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from gateway.limits.budget import Spending
from gateway.limits.counters import Counter, Terms
from gateway.limits.store import Store
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit

T = TypeVar("T")
IDLE_S = 1.0
"""A lease untouched for so long is returned."""
NOTHING = Terms(0.0, 0.0, 0.0)
"""What is asked of a bucket that is only looked at, or given back to."""


class Leasing:
    """The counters that this process shares with others, and what it leased for them."""

    def __init__(
        self, store: Store, clock: Callable[[], float], on_unshared: Callable[[Limit, str, float], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_unshared = on_unshared
        self._counters: WeakValueDictionary[tuple[str, Limit], Counter] = WeakValueDictionary()
        self._leased: set[Counter] = set()
        self._alone: set[Counter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owed: dict[Counter, float] = {}

    def counter(self, limit: Limit, key: str, consumer: str) -> Counter:
        """Give the counter of a shared bucket: one for all its callers in this process."""
        counter = self._counters.get((key, limit))
        if counter is None:
            counter = self._counters[key, limit] = Counter(limit, key, consumer, self._ask_ahead)
        return counter

    async def lease(self, lacking: list[Spending]) -> None:
        """Ask the store for these, or join who asked. Raises Refused where it is away and the limit closed."""
        for counter, cost in lacking:
            counter.waiting += cost
        try:
            now = self._clock()
            asked = {counter: self.ask(counter, counter.terms(cost, now)) for counter, cost in lacking}
            await asyncio.wait(asked.values())
        finally:
            for counter, cost in lacking:
                counter.waiting -= cost
        names = tuple(counter.limit.name for counter, task in asked.items() if not task.result())
        if names:
            raise Refused(
                Reason.OVERLOADED,
                "Limits cannot be counted at this moment.",
                retry_after_s=max(1.0, self._store.pause_left_s),
                policies=names,
            )

    async def look(self, counters: list[Counter]) -> None:
        """Ask the store what is left of these."""
        asked = [self.ask(counter, NOTHING) for counter in counters if not counter.is_alone]
        if asked:
            await asyncio.wait(asked)

    def ask(self, counter: Counter, asked: Terms) -> asyncio.Task[bool]:
        """Ask the store, or join who asked already."""
        if counter.pending is None:
            counter.pending = self.spawn(self._ask_store(counter, asked))
        return counter.pending

    async def _ask_store(self, counter: Counter, asked: Terms) -> bool:
        """Lease from the store; False where it is away and the limit says ``fail: closed``."""
        try:
            granted = await self._store.lease(counter.key, counter.rate, counter.size, asked)
        finally:
            counter.pending = None
        now = self._clock()
        if granted is not None:
            if not counter.is_alone:
                counter.granted(asked, granted.tokens, granted.left, granted.reset_s, now)
                counter.moved_at = now
                self._leased.add(counter)
        elif counter.limit.fail != "closed" or counter.limit.mode == "shadow":
            counter.go_local()
            self._alone.add(counter)
        else:
            return False
        return True

    def _ask_ahead(self, counter: Counter) -> None:
        """Lease more in the background: the lease runs low."""
        counter.low = 0.0  # the answer sets it again
        now = self._clock()
        if counter.pending is not None or counter.is_alone or now < counter.ask_at:
            return
        asked = counter.terms(0, now)
        if asked.want + asked.ahead >= 1:
            self.ask(counter, asked)

    def tick(self, now: float) -> None:
        """Return what lay idle; share again what was counted alone, now that the store is back."""
        for counter in [*self._leased]:
            self._keep(counter, now)
        if self._store.is_away:
            return
        if self._alone:
            self.go_shared()
        for counter in self._owed:
            self.spawn(self._pay(counter))

    def _keep(self, counter: Counter, now: float) -> None:
        if counter.is_month and counter.reset_at is not None and now >= counter.reset_at:
            counter.returned()  # tokens of a month that ended: nobody wants them back
            counter.left, counter.reset_at = counter.size, None
            self._leased.discard(counter)
        elif counter.lease != counter.seen:
            counter.seen, counter.moved_at = counter.lease, now
        elif now - counter.moved_at >= IDLE_S:
            self._return(counter)

    def _return(self, counter: Counter) -> None:
        """Give back what is not used, so that other processes can have it."""
        if self._store.is_away:
            return
        self._leased.discard(counter)
        if counter.is_alone or counter.lease <= 0:
            return
        held = counter.returned()
        counter.left += held
        self._give(counter, held)

    def _give(self, counter: Counter, tokens: float) -> None:
        self.spawn(self._store.lease(counter.key, counter.rate, counter.size, NOTHING, back=tokens))

    def give_back(self, counter: Counter, tokens: float) -> None:
        """Return at once what was charged and not used, and what is held besides: the next to ask may be another."""
        counter.put_back(tokens)
        self._return(counter)

    def owe(self, counter: Counter, tokens: float, now: float) -> None:
        """Spend what was used beyond what was charged; the shared bucket is told, and goes into debt for it.

        What is held besides is returned, as by ``give_back``.
        """
        lacking = counter.owe(tokens, now)
        if lacking > 0:
            self._owed[counter] = self._owed.get(counter, 0.0) + lacking
            self.spawn(self._pay(counter))
        self._return(counter)

    async def _pay(self, counter: Counter) -> None:
        """Tell the store what is owed to it; where it is away, that is tried again."""
        owed = self._owed.pop(counter, 0.0)
        if owed and await self._store.lease(counter.key, counter.rate, counter.size, NOTHING, back=-owed) is None:
            self._owed[counter] = self._owed.get(counter, 0.0) + owed

    def go_shared(self) -> None:
        """Share again: the store is back. What was let through meanwhile is told; quotas pay for it."""
        for counter in self._alone:
            held = counter.held
            spent = counter.go_shared()
            self._on_unshared(counter.limit, counter.label, spent)
            if counter.is_month and spent != held:
                self._give(counter, held - spent)
        self._alone.clear()

    async def stop(self) -> None:
        """Give back all leases."""
        await self._finish()
        for counter in [*self._leased]:
            self._return(counter)
        await self._finish()

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=1)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do it on a task of its own: a caller that goes away must not cut it short."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
