"""What is kept and for how long, in words, for the pages that show it."""

from __future__ import annotations

from django.conf import settings

from analytics.templatetags.display import data, thousands


def of_letters() -> str:
    """Return the bounds of dead letters."""
    kept = settings.RETENTION
    count = thousands(kept.dead_letters_rows) if kept.dead_letters_rows else ""
    sizes = (count, _bytes(kept.dead_letters_bytes))
    return _joined(_days(kept.dead_letters_days), *sizes, of="of each channel")


def of_connections() -> str:
    """Return the bounds of closed connections."""
    return _joined(_days(settings.RETENTION.connections_days), _rows(settings.RETENTION.connections_rows))


def of_limits() -> str:
    """Return the bounds of what limits refused."""
    return _joined(_days(settings.RETENTION.limits_days), _rows(settings.RETENTION.limits_rows))


def of_usage() -> str:
    """Return the bounds of usage, and when it becomes coarser."""
    kept = settings.RETENTION
    steps = [
        f"by the {unit} for {days} {'day' if days == 1 else 'days'}"
        for unit, days in (("minute", kept.usage_minutes_days), ("hour", kept.usage_hours_days))
        if days
    ]
    return ", ".join([_joined(_days(kept.usage_days), _rows(kept.usage_rows)), *steps])


def _days(days: int) -> str:
    return f"for {days} {'day' if days == 1 else 'days'}" if days else ""


def _rows(most: int) -> str:
    return f"{thousands(most)} rows" if most else ""


def _bytes(most: int) -> str:
    return data(most) if most else ""


def _joined(days: str, *sizes: str, of: str = "") -> str:
    size = " and ".join(size for size in sizes if size)
    size = f"at most {size} {of}".strip() if size else ""
    bounds = ", ".join(bound for bound in (days, size) if bound)
    return f"kept {bounds}" if bounds else "kept without a bound"
