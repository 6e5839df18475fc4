"""The limiter: decides whether calls, messages and bytes pass, as the caller's limits allow (see docs/limits.md).

A charge is arithmetic on tokens that this process leased ahead of need, without a round trip. The limit store is
awaited only by the first charge after a pause, or when the lease is empty and the shared bucket may hold more. A charge
that touches several limits is allowed by all of them, or spends from none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.concurrency.clock_jumps import ClockJumps
from gateway.concurrency.stopping import stop_tasks
from gateway.limits.budget import Budget, Counters, Plan, Spending, bucket_key
from gateway.limits.counters import Counter, put_back, spend
from gateway.limits.fields import fact, facts, field_lines, fields, legacy_fields, with_own
from gateway.limits.held_bodies import HeldBodies
from gateway.limits.leasing import TokenLeasing
from gateway.limits.open_jobs import IsOpen, OpenJobs, cannot_look_up
from gateway.limits.open_slots import BEAT_S, OpenSlots
from gateway.limits.reservation import Reservation
from gateway.limits.reserving import Reserving
from gateway.limits.settling import DELAY_MAX_S, DELAY_REQUEST_MAX_S, Rebound, Settling
from gateway.limits.store import LimitStore
from gateway.limits.tallies import LimitUsage, near
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit
from gateway.snapshot.principal import Principal
from gateway.wire.header_fields import Headers, lines_of

if TYPE_CHECKING:
    from redis.asyncio import Redis


logger = logging.getLogger(__name__)

TICK_S = 0.25
PLAN_IDLE_S = 60.0


class Limiter:
    """Enforces the limits of all callers in one process."""

    def __init__(
        self,
        redis: Redis,
        *,
        owner: str,
        timeout_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        has_legacy_fields: bool = False,
        is_open: IsOpen = cannot_look_up,
        held_bodies: HeldBodies | None = None,
    ) -> None:
        self._has_legacy_fields = has_legacy_fields
        self._clock = clock
        self.store = LimitStore(redis, timeout_s=timeout_s, clock=clock, on_available=self._back)
        self.usage = LimitUsage()
        self._leasing = TokenLeasing(self.store, clock, self.usage.let_through)
        self._settling = Settling(self._leasing, self.usage, clock)
        self._reserving = Reserving(self._leasing, self._settling, clock)
        self._slots = OpenSlots(self.store, owner)
        self._jobs = OpenJobs(self.store, is_open)
        self.held_bodies = held_bodies or HeldBodies()
        self._plans: dict[tuple[str, str, str], Plan] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to return idle leases, to renew slots, and to probe an unavailable store."""
        self._keeper = asyncio.create_task(self._keep(), name="limiter")

    async def stop(self) -> None:
        """Return all leases and slots."""
        await stop_tasks(self._keeper)
        self._slots.drop_all()
        await self._leasing.stop()
        await self.store.stop()

    async def admit(self, call: Call) -> None:
        """Admit a request, or a connection with its open slot. Raises Refused."""
        if not call.caller.limits:
            return
        if call.protocol is Protocol.HTTP:
            if _is_dry_run(call) and spend((self._plan(call.caller, call.ip).dry_runs,), 1, self._clock()):
                return
            if not self.admit_now(call):
                budget = self._bound(call)
                await self._settling.settle(budget, [(counter, 1) for counter in budget.requests], DELAY_REQUEST_MAX_S)
            return
        try:
            budget = self._bound(call)
            budget.slots += await self._slots.take_all(budget.open, budget.label, self.usage)
            await self._settling.settle(budget, [(counter, 1) for counter in budget.connections], DELAY_REQUEST_MAX_S)
        except BaseException:
            self.released(call)
            raise

    def admit_now(self, call: Call) -> bool:
        """Admit a request without waiting. If False, nothing was charged: await ``admit``."""
        budget, limits = call.budget, call.caller.limits
        if not limits:
            return True
        if budget is None or budget.plan is None or budget.plan.is_forgotten or budget.limits is not limits:
            call.budget = None
            budget = self._bound(call)
        now = self._clock()
        if budget.plan is not None:
            budget.plan.used_at = now
        return spend(budget.requests, 1, now)

    def withdraw(self, call: Call) -> None:
        """Undo ``admit_now``: the request was not begun."""
        if call.budget is not None:
            put_back(call.budget.requests, 1)

    def charge_now(
        self, call: Call, *, messages_in: int = 0, messages_out: int = 0, bytes_in: int = 0, bytes_out: int = 0
    ) -> bool:
        """Charge without waiting. If False, nothing was charged: await ``charge``."""
        budget = call.budget
        limits = call.principal.limits  # type: ignore[union-attr]  # only after authenticate; asserting costs too much here
        if not limits:
            return True
        if budget is None or budget.limits is not limits:
            budget = self._bound(call)
        now = self._clock()
        if messages_in and not spend(budget.messages_in, messages_in, now):
            return False
        if bytes_in and not spend(budget.bytes_in, bytes_in, now):
            put_back(budget.messages_in, messages_in)
            return False
        if not (messages_out or bytes_out):
            return True
        if spend(budget.messages_out, messages_out, now):
            if spend(budget.bytes_out, bytes_out, now):
                return True
            put_back(budget.messages_out, messages_out)
        put_back(budget.messages_in, messages_in)
        put_back(budget.bytes_in, bytes_in)
        return False

    async def charge(
        self,
        call: Call,
        *,
        messages_in: int = 0,
        messages_out: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        tokens_in: int = 0,
        tokens_out: int = 0,
    ) -> None:
        """Charge all or nothing: wait for limits with ``exceed: delay``, raise Refused for the others.

        A waiting call follows a change of its limits within half a second.
        """
        if not call.caller.limits:
            return
        budget = self._bound(call)
        costs = (
            (budget.messages_in, messages_in), (budget.messages_out, messages_out), (budget.bytes_in, bytes_in),
            (budget.bytes_out, bytes_out), (budget.tokens_in, tokens_in), (budget.tokens_out, tokens_out),
        )  # fmt: skip
        spendings: list[Spending] = [(counter, cost) for counters, cost in costs if cost for counter in counters]
        is_request = call.protocol is Protocol.HTTP and messages_in > 0
        delay_s = DELAY_REQUEST_MAX_S if is_request else DELAY_MAX_S
        try:
            await self._settling.settle(budget, spendings, delay_s, lambda: call.caller.limits is not budget.limits)
        except Rebound:
            await self.charge(
                call, messages_in=messages_in, messages_out=messages_out, bytes_in=bytes_in, bytes_out=bytes_out,
                tokens_in=tokens_in, tokens_out=tokens_out,
            )  # fmt: skip

    def put_back(self, counters: Counters, cost: float) -> None:
        """Return what was charged ahead and not received."""
        for counter in counters:
            self._leasing.give_back(counter, cost)

    async def charge_by(self, call: Call, limit: Limit, key: str, cost: float = 1) -> None:
        """Charge a limit that a route sets, under a key that it chose; ``headers`` then include it. Raises Refused."""
        counter = self._counter_by(call, limit, key)
        if limit.mode != "shadow" and counter not in call.limited_by:
            call.limited_by = (*call.limited_by, counter)
        await self._settling.settle(call.budget or Budget(), [(counter, cost)], DELAY_REQUEST_MAX_S)

    async def look_by(self, call: Call, limit: Limit, key: str) -> dict[str, Any]:
        """Return what is left of a limit that a route sets, as ``left`` does. Nothing is charged."""
        counter = self._counter_by(call, limit, key)
        await self._leasing.refresh([counter])
        return fact(limit, counter, self._clock())

    def _counter_by(self, call: Call, limit: Limit, key: str) -> Counter:
        return self._leasing.counter(limit, bucket_key("function", key, limit), call.caller.consumer)

    async def reserve(self, call: Call, *, tokens_in: int, tokens_out: int | None) -> Reservation:
        """Charge tokens before they are used. See :meth:`gateway.limits.reserving.Reserving.reserve`."""
        return await self._reserving.reserve(self._bound(call), tokens_in=tokens_in, tokens_out=tokens_out)

    def unreserved(self, call: Call) -> Reservation:
        """Return a reservation with nothing charged."""
        return Reservation.of([], self._bound(call), 0, 0)

    def reserve_more_now(self, reservation: Reservation, tokens_out: int) -> bool:
        """Charge tokens beyond the reservation. If False, nothing was charged: await ``reserve_more``."""
        return self._reserving.more_now(reservation, tokens_out)

    async def reserve_more(self, call: Call, reservation: Reservation, tokens_out: int) -> None:
        """Charge tokens beyond the reservation, waiting as limits delay it. Raises Refused."""
        await self._reserving.more(self._bound(call), reservation, tokens_out)

    def correct(self, reservation: Reservation, *, tokens_in: int, tokens_out: int) -> None:
        """Replace the reservation by what was used: the rest is given back, a shortfall is owed."""
        self._reserving.correct(reservation, tokens_in=tokens_in, tokens_out=tokens_out)

    def released(self, call: Call) -> Collection[asyncio.Future[Any]]:
        """Free the call's open slots, and return what is done once they are free. Never waits."""
        if call.budget is None or not call.budget.slots:
            return ()
        dropped = [self._slots.drop(slot) for slot in call.budget.slots]
        call.budget.slots.clear()
        return [free for free in dropped if free is not None]

    async def take_place(self, call: Call, job_id: str) -> list[str]:
        """Take a place for a new job under each limit of open jobs, or under none. Raises Refused.

        Returns the store's keys of the places, which are given back when the job ends.
        """
        call.takes_place = True
        places = self._plan(call.caller, call.ip).jobs if call.caller.limits else ()
        return await self._jobs.take_all(places, job_id, call.caller.consumer, self.usage)

    def give_back_place(self, keys: Iterable[str], job_id: str) -> None:
        """Return the places of a job that was not created. Never waits."""
        for key in keys:
            self._jobs.drop(key, job_id)

    def left(self, principal: Principal, call: Call | None = None) -> list[dict[str, Any]]:
        """Return each limit and what is left of it, as known here; ``look`` queries the store first."""
        if not principal.limits:
            return []
        plan = self._plan(principal, call.ip if call is not None else "")
        return facts(plan, self._count_open, self._clock())

    async def look(self, principal: Principal, call: Call | None = None) -> None:
        """Query the store for what is left of the principal's shared limits, for ``left`` to return."""
        plan = self._plan(principal, call.ip if call is not None else "")
        await self._leasing.refresh([*plan.shared()])
        for opened, look in ((plan.open, self._slots.refresh), (plan.jobs, self._jobs.refresh)):
            for limit, key in opened:
                if plan.ip or limit.scope != "ip":
                    await look(key)

    def usage_records(self, *, with_levels: bool) -> list[dict[str, Any]]:
        """Return what limits did since the last call, and the levels near their limit, as usage batches hold them."""
        now = self._clock()
        recent = [plan for plan in self._plans.values() if now - plan.used_at < PLAN_IDLE_S] if with_levels else []
        return self.usage.take(near(level for plan in recent for level in plan.levels(self._count_open, now)))

    def headers(self, call: Call) -> Headers:
        """Return the ``RateLimit-Policy`` and ``RateLimit`` fields of the limits that apply to this call."""
        now, lines, plan = self._clock(), [], None
        if call.principal is not None and call.principal.limits:
            plan = self._plan_of(call, call.principal)
            lines = fields(plan, call.protocol, self._slots.count, now)
        if call.limited_by or call.takes_place:
            lines = with_own(lines, call.limited_by, self._places_left(call), now)
        if self._has_legacy_fields:
            lines += legacy_fields(plan, call.protocol, call.limited_by, now)
        return lines

    def header_lines(self, call: Call) -> bytes:
        """Return what :meth:`headers` does, as the lines of a head."""
        budget = call.budget
        if budget is None or budget.plan is None or call.limited_by or call.takes_place or self._has_legacy_fields:
            return lines_of(self.headers(call))
        return field_lines(budget.plan, call.protocol, self._slots.count, self._clock())

    def _places_left(self, call: Call) -> dict[Limit, int]:
        if not (call.takes_place and call.caller.limits):
            return {}
        places = ((limit, key) for limit, key in self._plan(call.caller, call.ip).jobs if limit.mode != "shadow")
        return {limit: max(0, int(limit.amount) - self._jobs.count(key)) for limit, key in places}

    def _count_open(self, key: str) -> int:
        return self._slots.count(key) or self._jobs.count(key)

    # The budget of a call

    def _bound(self, call: Call) -> Budget:
        principal = call.caller
        budget = call.budget
        if budget is not None and budget.limits is principal.limits:
            return budget
        if call.protocol is Protocol.HTTP:
            # Requests of one principal share a budget; when its limits change, later ones get another.
            call.budget = self._plan(principal, call.ip).request_budget(principal)
            return call.budget
        if budget is None:
            budget = call.budget = Budget()
        budget.bind(principal.limits, self._plan(principal, call.ip), principal.consumer)
        return budget

    def _plan_of(self, call: Call, principal: Principal) -> Plan:
        budget = call.budget
        if budget is not None and budget.plan is not None and budget.limits is principal.limits:
            return budget.plan
        return self._plan(principal, call.ip)

    def _plan(self, principal: Principal, ip: str) -> Plan:
        name = (principal.consumer, principal.key, ip)
        plan = self._plans.get(name)
        if plan is None or plan.limits is not principal.limits:
            plan = self._plans[name] = Plan(principal, ip, self._leasing.counter)
        plan.used_at = self._clock()
        return plan

    # Upkeep

    async def _keep(self) -> None:
        beat_at = forget_at = self._clock()
        jumps = ClockJumps()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            try:
                self._leasing.tick(now)
                if self.store.is_unavailable and self.store.pause_left_s <= 0:
                    await self.store.ping()
                if now - beat_at >= BEAT_S or jumps.jumped_s():
                    # After a clock jump the store may consider all slots expired.
                    beat_at = now
                    await self._slots.beat()
                    await self._jobs.recount()
            except Exception:
                logger.exception("keeping leases failed; continuing")
            if now - forget_at >= PLAN_IDLE_S:
                forget_at = now
                self._forget(now)

    def _back(self) -> None:
        """Return to shared limits: the store is available again, and may have lost the open slots."""
        self._leasing.go_shared()
        self._leasing.spawn(self._slots.beat())
        self._leasing.spawn(self._jobs.share())

    def _forget(self, now: float) -> None:
        """Drop the plans of callers that have been idle, unless their buckets are still filling."""
        for name, plan in [*self._plans.items()]:
            if now - plan.used_at > PLAN_IDLE_S and all(counter.full_at <= now for counter in plan.shared()):
                del self._plans[name]
                plan.is_forgotten = True
                for _, key in plan.jobs:
                    self._jobs.forget(key)
                for _, key in plan.open:
                    self._slots.forget(key)


def _is_dry_run(call: Call) -> bool:
    return call.handler == "me" and b"would=" in call.query
