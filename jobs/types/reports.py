"""``reports``: the usage of a consumer in a period, as PDF, CSV or JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

import orjson
from django.core.files.base import ContentFile
from django.utils import timezone

from jobs.registry import InvalidInput, Produced, Task, job_type
from jobs.types.usage_report import Line, Report, gather

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


_RENDERERS = {"pdf": (as_pdf, "application/pdf"), "csv": (as_csv, "text/csv"), "json": (as_json, "application/json")}
