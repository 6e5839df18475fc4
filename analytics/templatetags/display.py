"""Template filters that format numbers and labels."""

from __future__ import annotations

from django import template
from markdown_it import MarkdownIt

from analytics import words

register = template.Library()
CODE = MarkdownIt("zero").enable("backticks")
"""Renders code spans only; everything else is text."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@register.filter
def thousands(count: int) -> str:
    """Format 12345 as 12,345."""
    return f"{count:,}"


@register.filter
def data(count: float) -> str:
    """Format an amount of bytes with a binary unit."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit and count < 10 else f"{count:,.0f} {UNITS[unit]}"


@register.filter
def protocol(name: str) -> str:
    """Return the display name of a protocol."""
    return words.PROTOCOLS.get(name, name)


@register.filter
def span(seconds: float) -> str:
    """Format a duration in its largest suitable unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@register.filter
def with_code(text: str) -> str:
    """Format text as HTML: backticks become code, everything is escaped."""
    return str(CODE.renderInline(text))
