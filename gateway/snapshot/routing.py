"""Matches paths to templates: literal segments first, then ``{id}.json``, ``{parameter}`` and ``{rest...}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.snapshot.segments import MixedSegment

T = TypeVar("T")


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    mixed: list[tuple[MixedSegment, _Node[T]]] = field(default_factory=list)
    """Segments with text beside parameters, those with more text first."""
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
        node = self._root
        names: list[str] = []
        for segment in template.split("/"):
            if (mixed := MixedSegment.parse(segment)) is not None:
                names += mixed.names
                node = _mixed_child(node, mixed)
                continue
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

    def find_exact(self, path: str) -> list[tuple[T, Mapping[str, str]]]:
        """Return the values of the template that is the path itself, without a parameter."""
        return self._exact.get(path, [])

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
        if not found and node.mixed:
            found = self._walk_mixed(node, segments, at, values)
        if not found and node.parameter is not None and segment:
            found = self._walk(node.parameter, segments, at + 1, (*values, segment))
        if not found and node.rests:
            rest = "/".join(segments[at:])
            found = [(value, dict(zip(names, (*values, rest), strict=True))) for value, names in node.rests]
        return found

    def _walk_mixed(
        self, node: _Node[T], segments: list[str], at: int, values: tuple[str, ...]
    ) -> list[tuple[T, Mapping[str, str]]]:
        for mixed, child in node.mixed:
            matched = mixed.match(segments[at])
            if matched is not None and (found := self._walk(child, segments, at + 1, (*values, *matched))):
                return found
        return []


def _mixed_child(node: _Node[T], mixed: MixedSegment) -> _Node[T]:
    for known, child in node.mixed:
        if known.texts == mixed.texts:
            return child
    child = _Node()
    node.mixed.append((mixed, child))
    node.mixed.sort(key=lambda entry: entry[0].specificity, reverse=True)
    return child
