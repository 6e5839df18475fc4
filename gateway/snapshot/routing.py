"""Matches paths to templates: literal segments first, then ``{parameter}``, then ``{rest...}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    parameter: _Node[T] | None = None
    ends: list[tuple[T, tuple[str, ...]]] = field(default_factory=list)
    rests: list[tuple[T, tuple[str, ...]]] = field(default_factory=list)


class PathTable(Generic[T]):
    """Values by templates of paths (or channel addresses). A look-up takes time linear in the number of segments."""

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        self._root: _Node[T] = _Node()
        self._exact: dict[str, list[tuple[T, Mapping[str, str]]]] = {}
        for template, value in entries:
            self.add(template, value)

    def add(self, template: str, value: T) -> None:
        """Add a template such as ``/api/{version}/{rest...}``."""
        if "{" not in template:
            self._exact.setdefault(template, []).append((value, {}))
            return
        node, names = self._root, []
        for segment in template.split("/"):
            if not (segment.startswith("{") and segment.endswith("}")):
                node = node.literals.setdefault(segment, _Node())
                continue
            names.append(segment[1:-1].removesuffix("..."))
            if segment.endswith("...}"):
                node.rests.append((value, tuple(names)))
                return
            node.parameter = node.parameter or _Node()
            node = node.parameter
        node.ends.append((value, tuple(names)))

    def find(self, path: str) -> list[tuple[T, Mapping[str, str]]]:
        """Return the values of the most specific template that matches, each with the values of the parameters."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        return self._walk(self._root, path.split("/"), 0, ())

    def _walk(
        self, node: _Node[T], segments: list[str], at: int, values: tuple[str, ...]
    ) -> list[tuple[T, Mapping[str, str]]]:
        if at == len(segments):
            return [(value, dict(zip(names, values, strict=True))) for value, names in node.ends]
        segment = segments[at]
        literal = node.literals.get(segment)
        found = self._walk(literal, segments, at + 1, values) if literal is not None else []
        if not found and node.parameter is not None and segment:
            found = self._walk(node.parameter, segments, at + 1, (*values, segment))
        if not found and node.rests:
            rest = "/".join(segments[at:])
            found = [(value, dict(zip(names, (*values, rest), strict=True))) for value, names in node.rests]
        return found
