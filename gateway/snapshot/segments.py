"""Segments of path templates with text beside their parameters: ``{id}.json``, ``{name}:cancel``, ``Items({id})``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class MixedSegment:
    """Texts with a parameter between each two of them; a parameter matches at least one character.

    Where a segment can be read in several ways, each parameter but the last is as short as possible.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, segment: str) -> Self | None:
        """Parse a segment of a template. Returns None if it is plain text or one whole parameter.

        Two parameters with no text between them are not told apart, so they are None, too.
        """
        pieces = _PARAMETER.split(segment)
        texts, names = tuple(pieces[::2]), tuple(pieces[1::2])
        if not names or not all(texts[1:-1]) or not any(texts) or any("{" in text or "}" in text for text in texts):
            return None
        return cls(texts, names)

    @property
    def specificity(self) -> tuple[int, int]:
        """Sorts segments: one with more text is more specific, then one with fewer parameters."""
        return sum(map(len, self.texts)), -len(self.names)

    def match(self, segment: str) -> tuple[str, ...] | None:
        """Return the values of the parameters, or None if the segment does not match. Takes linear time."""
        first, *inner, last = self.texts
        if not segment.startswith(first):
            return None
        end = len(segment) - len(last)
        if not segment.endswith(last):
            return None
        values, at = [], len(first)
        for text in inner:
            found = segment.find(text, at + 1, end)
            if found < 0:
                return None
            values.append(segment[at:found])
            at = found + len(text)
        if at >= end:
            return None
        return (*values, segment[at:end])


def can_meet(template: str, other: str) -> bool:
    """Return whether some path matches both templates. Two mixed segments are taken to meet."""
    mine, theirs = template.split("/"), other.split("/")
    for one, another in zip(mine, theirs, strict=False):
        if one.endswith("...}") or another.endswith("...}"):
            return True
        if not _segments_meet(one, another):
            return False
    return len(mine) == len(theirs)


def _segments_meet(one: str, other: str) -> bool:
    if "{" in one and "{" in other:
        return True
    literal, template = (one, other) if "{" not in one else (other, one)
    if "{" not in template:
        return literal == template
    mixed = MixedSegment.parse(template)
    return bool(literal) if mixed is None else mixed.match(literal) is not None
