"""Reserves tokens of models before a call uses them, and corrects that once the answer says how many it used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.limits.budget import Budget, Spending
from gateway.limits.counters import PROBE_S, spend
from gateway.limits.leasing import TokenLeasing
from gateway.limits.reservation import Reservation, never_held
from gateway.limits.settling import DELAY_MAX_S, DELAY_REQUEST_MAX_S, Settling
from gateway.refusals import Refused

TOKENS_OUT_DEFAULT = 1024
"""The tokens reserved for an answer whose request sets no maximum, if that many are left."""


class Reserving:
    """Charges reservations to the limits of their callers."""

    def __init__(self, leasing: TokenLeasing, settling: Settling, clock: Callable[[], float]) -> None:
        self._leasing = leasing
        self._settling = settling
        self._clock = clock

    async def reserve(self, budget: Budget, *, tokens_in: int, tokens_out: int | None) -> Reservation:
        """Charge tokens before they are used; without a maximum, ``TOKENS_OUT_DEFAULT`` or what is left.

        Raises Refused; without ``retry_after_s`` if the tokens exceed the bucket, so that waiting would not help.
        """
        wanted = TOKENS_OUT_DEFAULT if tokens_out is None else tokens_out
        # The level known here may be stale: others may have returned tokens that they reserved and did not use.
        await self._leasing.refresh([*budget.tokens_in, *budget.tokens_out])
        while True:
            if tokens_out is None:
                wanted = max(1, min(wanted, self._tokens_left(budget)))
            try:
                return await self._reserve(budget, tokens_in, wanted)
            except Refused:
                # The store was queried meanwhile: it may hold less than assumed, but some.
                if tokens_out is not None or self._tokens_left(budget) >= wanted or wanted == 1:
                    raise
                await asyncio.sleep(PROBE_S)

    async def _reserve(self, budget: Budget, tokens_in: int, tokens_out: int) -> Reservation:
        spendings: list[Spending] = []
        too_large: list[Spending] = []
        for counters, cost in ((budget.tokens_in, tokens_in), (budget.tokens_out, tokens_out)):
            for counter in counters if cost else ():
                (too_large if cost > counter.size else spendings).append((counter, cost))
        never = [spending for spending in too_large if spending[0].limit.mode != "shadow"]
        if never:
            raise never_held(never)
        self._settling.tally_shadows(too_large)
        taken = await self._settling.settle(budget, spendings, DELAY_REQUEST_MAX_S)
        return Reservation.of([counter for counter, _ in taken], budget, tokens_in, tokens_out)

    def _tokens_left(self, budget: Budget) -> int:
        now = self._clock()
        left = [counter.state(now)[0] for counter in budget.tokens_out if counter.limit.mode != "shadow"]
        return int(min(left, default=TOKENS_OUT_DEFAULT))

    def more_now(self, reservation: Reservation, tokens_out: int) -> bool:
        """Charge tokens beyond the reservation. If False, nothing was charged: await ``more``."""
        if tokens_out and not spend(tuple(held.counter for held in reservation.out), tokens_out, self._clock()):
            return False
        reservation.tokens_out += tokens_out
        return True

    async def more(self, budget: Budget, reservation: Reservation, tokens_out: int) -> None:
        """Charge tokens beyond the reservation, waiting as limits delay it. Raises Refused."""
        spendings: list[Spending] = [(held.counter, tokens_out) for held in reservation.out]
        reservation.keep(await self._settling.settle(budget, spendings, DELAY_MAX_S))
        reservation.tokens_out += tokens_out

    def correct(self, reservation: Reservation, *, tokens_in: int, tokens_out: int) -> None:
        """Replace the reservation by what was used: the rest is given back, a shortfall is owed."""
        now = self._clock()
        for held, difference in reservation.corrected(tokens_in, tokens_out):
            if difference > 0:
                self._leasing.owe(held.counter, difference, now)
            elif held.ends_at is None or now < held.ends_at:
                self._leasing.give_back(held.counter, -difference)
