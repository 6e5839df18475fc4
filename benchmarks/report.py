"""Renders what was measured: rows for a terminal, docs/benchmarks.md and benchmarks/results.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.sampling import MEASURES, OURS, Figure, Row, ratio


@dataclass(frozen=True, slots=True)
class Section:
    """One work: what it is, and what each server needed for it."""

    name: str
    title: str
    how: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Report:
    """One whole run."""

    on: str
    rounds: int
    seconds: float
    sections: Sequence[Section]
    absent: Mapping[str, str] = field(default_factory=dict)
    """Peers that are not installed, and how to install them."""


def lines(section: Section) -> list[str]:
    """Return the rows of one work for a terminal."""
    return [f"{section.title:44} {row.who:11} {_measured(row)}  {_against(row, section.rows)}" for row in section.rows]


def page(report: Report) -> str:
    """Return docs/benchmarks.md."""
    table = "\n".join(
        f"| {section.title if row is section.rows[0] else ''} | {row.who} | {_cost(row)} | {_others(row)} "
        f"| {_against(row, section.rows)} |"
        for section in report.sections
        for row in section.rows
    )
    how = "\n".join(
        f"- **{section.title}** (`script/bench {section.name}`): {section.how}" for section in report.sections
    )
    return f"""# Benchmarks

Written by `script/bench` on {report.on}: {platform.machine()}, {platform.system()}, CPython
{platform.python_version()}. One run measures everything: each server on one core, and the load with the upstream
that all proxies share on another. Figures are medians of {report.rounds} rounds of {report.seconds:g} s, with
the servers in turn. ± is half the difference of the extremes, as a share of the median. Where runs
differ too much for a median to be repeated, the extremes are given instead, without a ratio.

- **cost** is the user and system CPU time of the server's processes for each unit of verified work. A run with one
  wrong status, lost message or missing answer fails, and nothing is written.
- **with its store** adds the product's other processes: NATS, the projector and the limits' store.
- **ratio** is the server's cost divided by apimgmt's: above 1, apimgmt needs less.

| work | server | cost | rate and latency | ratio |
|---|---|---|---|---|
{table}
{_absent(report.absent)}
## How each is measured

{how}

Absolute figures depend on the machine; the ratios are more portable. Run `script/bench` on yours, or one work with
`script/bench NAME`; `script/bench --help` lists the names. The figures of all runs are in
[benchmarks/results.json](../benchmarks/results.json).
"""


def document(report: Report) -> dict[str, Any]:
    """Return what benchmarks/results.json contains."""
    return {
        "on": report.on,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "rounds": report.rounds,
        "seconds": report.seconds,
        "absent": dict(report.absent),
        "works": {
            section.name: {
                row.who: {name: asdict(figure) for name, figure in row.figures.items()} for row in section.rows
            }
            for section in report.sections
        },
    }


def _absent(absent: Mapping[str, str]) -> str:
    if not absent:
        return ""
    listed = "\n".join(f"- **{name}**: {how}" for name, how in absent.items())
    return f"\n## Not installed, and so not measured\n\n{listed}\n"


def _measured(row: Row) -> str:
    return f"{_cost(row):>28}  {_others(row):60}"


def _cost(row: Row) -> str:
    return _text(row.cost, row.figures[row.cost])


def _others(row: Row) -> str:
    return ", ".join(_text(name, figure) for name, figure in row.figures.items() if name != row.cost)


def _text(name: str, figure: Figure) -> str:
    unit = MEASURES[name] if name == "per_s" else f" {MEASURES[name]}"
    if not figure.is_repeatable:
        return f"{_number(figure.lowest)}…{_number(figure.highest)}{unit}"
    return f"{_number(figure.median)}{unit} ±{figure.spread * 50:.0f} %"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _against(row: Row, rows: Sequence[Row]) -> str:
    ours = next((one for one in rows if one.who == OURS), None)
    times = ratio(row, ours) if ours else None
    return "" if times is None else f"{times:.2f}"
