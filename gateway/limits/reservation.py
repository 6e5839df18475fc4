"""Tokens that one AI call was charged ahead, and how that differs from what it used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from gateway.limits.budget import Budget, Spending
from gateway.limits.counters import MONTH, Counter
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Metric


@dataclass(frozen=True, slots=True)
class Held:
    """A counter that was charged."""

    counter: Counter
    ends_at: float | None
    """When its calendar month ends (monotonic): afterwards nothing is given back to it."""


@dataclass(slots=True)
class Reservation:
    """What is charged so far for one call, of the counters that it was charged to."""

    tokens_in: int = 0
    tokens_out: int = 0
    into: list[Held] = field(default_factory=list)
    out: list[Held] = field(default_factory=list)

    @classmethod
    def of(cls, charged: list[Counter], budget: Budget, tokens_in: int, tokens_out: int) -> Self:
        """Note which counters of a budget were charged; all of a metric that nothing was asked of."""

        def held(counters: tuple[Counter, ...], tokens: int) -> list[Held]:
            return [Held(counter, counter.reset_at) for counter in counters if not tokens or counter in charged]

        return cls(tokens_in, tokens_out, held(budget.tokens_in, tokens_in), held(budget.tokens_out, tokens_out))

    def keep(self, charged: list[Spending]) -> None:
        """Keep of the counters of the answer those that were charged: a shadow limit that is met is left out."""
        counters = [counter for counter, _ in charged]
        self.out = [held for held in self.out if held.counter in counters]

    def corrected(self, tokens_in: int, tokens_out: int) -> Iterator[tuple[Held, int]]:
        """Take what was used for what was charged; gives the difference of each counter."""
        into, out = tokens_in - self.tokens_in, tokens_out - self.tokens_out
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        for held in self.into:
            yield held, into
        for held in self.out:
            yield held, out


def never_held(asked: list[Spending]) -> Refused:
    """Refuse a reservation that no bucket will ever hold: waiting does not help, asking for less does."""
    counter, cost = min(asked, key=lambda spending: spending[0].size)
    limit, most = counter.limit, int(counter.size)
    what = "may be asked for (`max_tokens`)" if limit.metric is Metric.TOKENS_OUT else "may be in one prompt"
    return Refused(
        Reason.QUOTA_EXCEEDED if limit.per == MONTH else Reason.RATE_LIMITED,
        f"At most {most} tokens {what} under the limit {limit.name}; these are {cost:g}. Waiting does not help.",
        policies=tuple(each.limit.name for each, _ in asked),
        headers=((b"x-should-retry", b"false"),),
        members={"tokens_max": most},
    )
