"""Filters that say numbers and labels as people read them."""

from __future__ import annotations

from django import template
from markdown_it import MarkdownIt

from analytics import words

register = template.Library()
CODE = MarkdownIt("zero").enable("backticks")
"""Knows code alone; all else is text."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@register.filter
def thousands(count: int) -> str:
    """Say 12345 as 12,345."""
    return f"{count:,}"


@register.filter
def data(count: float) -> str:
    """Say an amount of bytes in the unit that suits it."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit and count < 10 else f"{count:,.0f} {UNITS[unit]}"


@register.filter
def protocol(name: str) -> str:
    """Say a protocol's name."""
    return words.PROTOCOLS.get(name, name)


@register.filter
def span(seconds: float) -> str:
    """Say a span of time in the unit that suits it."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@register.filter
def with_code(text: str) -> str:
    """Say as HTML, all of it escaped, what stands in backticks as code and the rest as the text that it is."""
    return str(CODE.renderInline(text))
