"""Token leasing: leases from the limit store ahead of need, returns what is idle, counts alone without the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from gateway.limits.budget import Spending
from gateway.limits.counters import Counter, Terms
from gateway.limits.store import LimitStore
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit

T = TypeVar("T")
IDLE_S = 1.0
"""A lease that has not changed for this long is returned."""
NOTHING = Terms(0.0, 0.0, 0.0)
"""The request that only reads a bucket, or returns tokens to it."""


class LeasedCounter(Counter):
    """A counter whose lease is renewed by :class:`TokenLeasing` when it runs low."""

    __slots__ = ("_lease_more",)

    def __init__(self, limit: Limit, key: str, label: str, lease_more: Callable[[Counter], None]) -> None:
        super().__init__(limit, key, label, is_shared=True)
        self._lease_more = lease_more

    def runs_low(self) -> None:
        """Lease more in the background."""
        self._lease_more(self)


class TokenLeasing:
    """The counters that this process shares with others, and the tokens leased for them."""

    def __init__(
        self, store: LimitStore, clock: Callable[[], float], on_unshared: Callable[[Limit, str, float], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_unshared = on_unshared
        self._counters: WeakValueDictionary[tuple[str, Limit], Counter] = WeakValueDictionary()
        self._leased: dict[Counter, tuple[float, float]] = {}
        """The counters with a lease: how large it was when it last changed, and when that was."""
        self._alone: set[Counter] = set()
        self._requests: dict[Counter, asyncio.Task[bool]] = {}
        """The request to the store that is under way for a counter: there is one at a time."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owed: dict[Counter, float] = {}

    def counter(self, limit: Limit, key: str, consumer: str) -> Counter:
        """Return the counter of a shared bucket: one for all its callers in this process."""
        counter = self._counters.get((key, limit))
        if counter is None:
            counter = self._counters[key, limit] = LeasedCounter(limit, key, consumer, self._lease_ahead)
        return counter

    async def lease(self, lacking: list[Spending]) -> None:
        """Lease tokens for these costs, or join the requests under way.

        Raises Refused where the store is unavailable and a limit fails closed.
        """
        for counter, cost in lacking:
            counter.waiting += cost
        try:
            now = self._clock()
            requests = {counter: self._request(counter, counter.terms(cost, now)) for counter, cost in lacking}
            await asyncio.wait(requests.values())
        finally:
            for counter, cost in lacking:
                counter.waiting -= cost
        names = tuple(counter.limit.name for counter, task in requests.items() if not task.result())
        if names:
            raise Refused(
                Reason.OVERLOADED,
                "Limits cannot be counted at this moment.",
                retry_after_s=max(1.0, self._store.pause_left_s),
                policies=names,
            )

    async def refresh(self, counters: list[Counter]) -> None:
        """Read from the store what is left of these."""
        requests = [self._request(counter, NOTHING) for counter in counters if not counter.is_alone]
        if requests:
            await asyncio.wait(requests)

    def _request(self, counter: Counter, terms: Terms) -> asyncio.Task[bool]:
        """Start a request to the store, or return the one under way."""
        task = self._requests.get(counter)
        if task is None:
            task = self._requests[counter] = self.spawn(self._request_lease(counter, terms))
        return task

    async def _request_lease(self, counter: Counter, terms: Terms) -> bool:
        """Return False where the store is unavailable and the limit fails closed."""
        try:
            granted = await self._store.lease(counter.key, counter.rate, counter.size, terms)
        finally:
            del self._requests[counter]
        now = self._clock()
        if granted is None:
            if counter.limit.fail == "closed" and counter.limit.mode != "shadow":
                return False
            counter.go_local()
            self._alone.add(counter)
        elif not counter.is_alone:
            counter.granted(terms, granted.tokens, granted.left, granted.reset_s, now)
        self._leased[counter] = counter.lease, now
        return True

    def _lease_ahead(self, counter: Counter) -> None:
        counter.low = 0.0  # set again by the answer
        now = self._clock()
        if counter in self._requests or counter.is_alone or now < counter.retry_at:
            return
        terms = counter.terms(0, now)
        if terms.want + terms.ahead >= 1:
            self._request(counter, terms)

    def tick(self, now: float) -> None:
        """Return idle leases; share again what was counted alone, once the store is available."""
        for counter in [*self._leased]:
            self._keep(counter, now)
        if self._store.is_unavailable:
            return
        if self._alone:
            self.go_shared()
        for counter in self._owed:
            self.spawn(self._pay(counter))

    def _keep(self, counter: Counter, now: float) -> None:
        lease, changed_at = self._leased[counter]
        if counter.is_month and counter.reset_at is not None and now >= counter.reset_at:
            counter.begin_month()
            del self._leased[counter]
        elif counter.lease != lease:
            self._leased[counter] = counter.lease, now
        elif now - changed_at >= IDLE_S:
            self._return(counter)

    def _return(self, counter: Counter) -> None:
        """Return the lease to the store, for other processes."""
        if self._store.is_unavailable:
            return
        self._leased.pop(counter, None)
        if counter.is_alone or counter.lease <= 0:
            return
        held = counter.returned()
        counter.left += held
        self._send_back(counter, held)

    def _send_back(self, counter: Counter, tokens: float) -> None:
        self.spawn(self._store.lease(counter.key, counter.rate, counter.size, NOTHING, back=tokens))

    def give_back(self, counter: Counter, tokens: float) -> None:
        """Return tokens that were charged and not used, with the rest of the lease: the next call may be elsewhere."""
        counter.put_back(tokens)
        self._return(counter)

    def owe(self, counter: Counter, tokens: float, now: float) -> None:
        """Spend what was used beyond what was charged. The shared bucket goes into debt for what no lease covers.

        The rest of the lease is returned, as by :meth:`give_back`.
        """
        lacking = counter.owe(tokens, now)
        if lacking > 0:
            self._owed[counter] = self._owed.get(counter, 0.0) + lacking
            self.spawn(self._pay(counter))
        self._return(counter)

    async def _pay(self, counter: Counter) -> None:
        """Charge the debt in the store; kept for a later try where the store is unavailable."""
        owed = self._owed.pop(counter, 0.0)
        if owed and await self._store.lease(counter.key, counter.rate, counter.size, NOTHING, back=-owed) is None:
            self._owed[counter] = self._owed.get(counter, 0.0) + owed

    def go_shared(self) -> None:
        """Share again: the store is available. What passed meanwhile is tallied, and charged to quotas."""
        for counter in self._alone:
            held = counter.held
            spent = counter.go_shared()
            self._on_unshared(counter.limit, counter.label, spent)
            if counter.is_month and spent != held:
                self._send_back(counter, held - spent)
        self._alone.clear()

    async def stop(self) -> None:
        """Return all leases."""
        await self._finish()
        for counter in [*self._leased]:
            self._return(counter)
        await self._finish()

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=1)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it as a task, which the cancellation of a caller does not end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
