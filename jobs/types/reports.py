"""``reports``: the usage of a consumer in a period, as PDF, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.core.files.base import ContentFile
from django.db.models import Q, Sum
from django.utils import timezone

from analytics.models import UsageMinute
from jobs.registry import InvalidInput, Produced, Task, job_type

PERIODS = {
    "daily": timedelta(days=1),
    "weekly": timedelta(days=7),
    "monthly": timedelta(days=30),
    "quarterly": timedelta(days=91),
}
SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"enum": list(PERIODS), "description": "The period that ends now."},
        "format": {"enum": ["pdf", "csv", "json"]},
    },
    "required": ["type"],
    "additionalProperties": False,
}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


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


@job_type("reports", title="Usage report", schema=SCHEMA)
def reports(task: Task) -> Produced:
    """Render the consumer's usage. Input: ``type`` (the period) and ``format`` (``pdf`` by default)."""
    period, format_ = task.input.get("type", ""), task.input.get("format", "pdf")
    if period not in PERIODS:
        raise InvalidInput(f"`type` must be one of {', '.join(PERIODS)}.")
    if format_ not in _RENDERERS:
        raise InvalidInput(f"`format` must be one of {', '.join(_RENDERERS)}.")
    task.progress(0.1, "Reading usage")
    until = timezone.now()
    report = gather(task.consumer, period, until - PERIODS[period], until)
    task.progress(0.5, f"Rendering {len(report.lines)} lines")
    render, content_type = _RENDERERS[format_]
    content = render(report)
    task.progress(0.9, "Storing")
    name = f"usage-{period}-{until:%Y-%m-%d}.{format_}"
    return Produced(file=ContentFile(content), file_name=name, file_type=content_type)


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


def as_json(report: Report) -> bytes:
    """Render as one JSON object."""
    return orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2)


def as_csv(report: Report) -> bytes:
    """Render as CSV, one line for each route or channel; text that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(field.name for field in fields(Line))
    for line in report.lines:
        writer.writerow(_escape_formula(value) for value in _values(line))
    return out.getvalue().encode()


def as_pdf(report: Report) -> bytes:
    """Render as a page of A4 with totals, a chart and a table."""
    from jobs.types.report_pdf import draw  # loads a drawing library that no other job needs

    return draw(report)


def _values(line: Line) -> list[Any]:
    return [getattr(line, field.name) for field in fields(Line)]


def _escape_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def totals(lines: Iterable[Line]) -> dict[str, int]:
    """Sum each figure over all lines."""
    names = ("calls", "refused", "messages_in", "messages_out", "bytes_in", "bytes_out")
    counted = list(lines)
    return {name: sum(getattr(line, name) for line in counted) for name in names}


_RENDERERS = {"pdf": (as_pdf, "application/pdf"), "csv": (as_csv, "text/csv"), "json": (as_json, "application/json")}
