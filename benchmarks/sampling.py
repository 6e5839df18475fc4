"""What a run measured, and what several runs come to: medians and spreads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Sample = Mapping[str, float]
"""The measures of one run by name, of ``MEASURES``."""

OURS = "apimgmt"
MEASURES = {
    "cpu_us": "µs cpu",
    "all_us": "µs cpu with its store",
    "per_s": "/s",
    "added_ms": "ms added",
    "p50_ms": "ms p50",
    "p99_ms": "ms p99",
    "kib": "KiB",
    "policy_us": "µs cpu",
}
"""Every measure, in the order of a report: its unit."""

SPREAD_MAX = 0.3
"""A median is repeatable if its runs differ by less than this share of it."""
NEGLIGIBLE = 0.5
"""Runs that differ by less than this, in the measure's unit, are repeatable however small their median is."""


class WrongAnswer(RuntimeError):
    """The work was not done as asked, so what it cost says nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure over all runs."""

    median: float
    lowest: float
    highest: float

    @property
    def spread(self) -> float:
        """The difference of the extremes as a share of the median."""
        return (self.highest - self.lowest) / abs(self.median) if self.median else 0.0

    @property
    def is_repeatable(self) -> bool:
        """Whether another run would probably come to the same."""
        return self.spread <= SPREAD_MAX or self.highest - self.lowest < NEGLIGIBLE


@dataclass(frozen=True, slots=True)
class Row:
    """What one server needed for one work."""

    work: str
    who: str
    figures: Mapping[str, Figure]

    @property
    def cost(self) -> str:
        """The name of the measure by which servers are compared: the first one."""
        return next(name for name in MEASURES if name in self.figures)


def figures_of(samples: list[Sample]) -> dict[str, Figure]:
    """Return each measure's figure over these runs."""
    names = [name for name in MEASURES if name in samples[0]]
    return {name: _figure([sample[name] for sample in samples]) for name in names}


def ratio(row: Row, ours: Row) -> float | None:
    """Return how many times our cost this server's is: above 1, we need less. None where no figure is comparable."""
    name = ours.cost
    if row.who == ours.who or name not in row.figures or ours.figures[name].median <= 0:
        return None
    if not (row.figures[name].is_repeatable and ours.figures[name].is_repeatable):
        return None
    return row.figures[name].median / ours.figures[name].median


def _figure(values: list[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))
