"""The usage of a consumer in a period, as every format of the report renders it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, Sum

from analytics.models import UsageMinute


@dataclass(frozen=True, slots=True)
class Line:
    """Usage of one route or channel over one protocol."""

    protocol: str
    target: str
    calls: int
    refused: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Report:
    """Usage of one consumer over one period, aware instants."""

    consumer: str
    period: str
    since: datetime
    until: datetime
    lines: Sequence[Line]


def gather(consumer: str, period: str, since: datetime, until: datetime) -> Report:
    """Sum the consumer's minute roll-ups of the period, busiest first."""
    rows = (
        UsageMinute.objects.filter(consumer=consumer, minute__gte=since, minute__lt=until)
        .values("protocol", "target")
        .annotate(
            all_calls=Sum("calls"),
            refused_calls=Sum("calls", filter=~Q(outcome="ok"), default=0),
            in_=Sum("messages_in"),
            out=Sum("messages_out"),
            up=Sum("bytes_in"),
            down=Sum("bytes_out"),
        )
        .order_by("-all_calls", "protocol", "target")
    )
    lines = [
        Line(row["protocol"], row["target"], row["all_calls"], row["refused_calls"],
             row["in_"], row["out"], row["up"], row["down"])
        for row in rows
    ]  # fmt: skip
    return Report(consumer, period, since, until, lines)


def totals(lines: Iterable[Line]) -> dict[str, int]:
    """Sum each figure over all lines."""
    names = ("calls", "refused", "messages_in", "messages_out", "bytes_in", "bytes_out")
    counted = list(lines)
    return {name: sum(getattr(line, name) for line in counted) for name in names}
