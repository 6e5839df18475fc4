"""Convert paths in the syntax of the URL Pattern standard, such as ``/users/:id``, ``/files/:path*``, ``/proxy/*``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

UNNAMED = "rest"
"""The parameter for a group without a name, which the standard numbers."""
_TOKEN = re.compile(r":(?P<name>[A-Za-z_]\w*)(?P<group>\([^()]*\))?|(?P<unnamed>\*|\(\.\*\))", re.ASCII)
_MODIFIER = re.compile(r"[*+?]\Z")
_SPECIAL = frozenset("()*+?{}:")


@dataclass(frozen=True)
class Pattern:
    """The path of a route for a pattern, and how it differs from it; empty if it does not."""

    path: str
    note: str = ""

    @classmethod
    def parse(cls, pattern: str) -> Self:
        """Convert a pattern. Raises ValueError for one that no path of a route stands for."""
        segments = pattern.split("/")
        notes: dict[str, None] = {}
        converted = [
            _segment(segment, notes, is_last=number == len(segments)) for number, segment in enumerate(segments, 1)
        ]
        return cls("/".join(converted), "; ".join(notes))


def _segment(segment: str, notes: dict[str, None], *, is_last: bool) -> str:
    modifier = _MODIFIER.search(segment)
    body = segment[:-1] if modifier and len(segment) > 1 else segment
    whole = _TOKEN.fullmatch(body)
    if whole and (whole["unnamed"] or (modifier and modifier[0] in "*+" and body != segment)):
        if not is_last:
            raise ValueError("only the last segment can stand for several")
        return f"{{{whole['name'] or UNNAMED}...}}"
    if body != segment:
        raise ValueError("a part that may be left out needs a route of its own")

    def parameter(found: re.Match[str]) -> str:
        if found["unnamed"]:
            raise ValueError("a wildcard must be the last segment")
        if found["group"]:
            notes[f"{found['group']} is not checked"] = None
        return f"{{{found['name']}}}"

    converted = _TOKEN.sub(parameter, segment)
    if _SPECIAL & {*re.sub(r"\{\w+\}", "", converted)}:
        raise ValueError("only parameters are, and a wildcard at the end")
    return converted
