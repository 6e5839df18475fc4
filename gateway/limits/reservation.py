"""Tokens that one AI call was charged before it used them, and the correction afterwards."""

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
    """When its calendar month ends (monotonic): nothing is returned to it later."""


@dataclass(slots=True)
class Reservation:
    """The tokens charged so far for one call, and the counters that they were charged to."""

    tokens_in: int = 0
    tokens_out: int = 0
    into: list[Held] = field(default_factory=list)
    out: list[Held] = field(default_factory=list)

    @classmethod
    def of(cls, charged: list[Counter], budget: Budget, tokens_in: int, tokens_out: int) -> Self:
        """Return a reservation of the charged counters of a budget; of a metric without tokens, of all its counters."""

        def held(counters: tuple[Counter, ...], tokens: int) -> list[Held]:
            return [Held(counter, counter.reset_at) for counter in counters if not tokens or counter in charged]

        return cls(tokens_in, tokens_out, held(budget.tokens_in, tokens_in), held(budget.tokens_out, tokens_out))

    def keep(self, charged: list[Spending]) -> None:
        """Keep the output counters that were charged, and drop a shadow limit that would have refused."""
        counters = [counter for counter, _ in charged]
        self.out = [held for held in self.out if held.counter in counters]

    def corrected(self, tokens_in: int, tokens_out: int) -> Iterator[tuple[Held, int]]:
        """Replace the charge by what was used; yield the difference for each counter."""
        into, out = tokens_in - self.tokens_in, tokens_out - self.tokens_out
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        for held in self.into:
            yield held, into
        for held in self.out:
            yield held, out


def never_held(costs: list[Spending]) -> Refused:
    """Return the refusal of a reservation larger than its bucket: waiting cannot help."""
    counter, cost = min(costs, key=lambda spending: spending[0].size)
    limit, most = counter.limit, int(counter.size)
    what = "may be requested (`max_tokens`)" if limit.metric is Metric.TOKENS_OUT else "may be in one prompt"
    return Refused(
        Reason.QUOTA_EXCEEDED if limit.per == MONTH else Reason.RATE_LIMITED,
        f"At most {most} tokens {what} under the limit {limit.name}; these are {cost:g}. Waiting does not help.",
        policies=tuple(each.limit.name for each, _ in costs),
        headers=((b"x-should-retry", b"false"),),
        members={"tokens_max": most},
    )
