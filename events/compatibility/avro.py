"""Whether data written by one Avro schema can be read by another (specification 1.12, "Schema Resolution")."""

from __future__ import annotations

from dataclasses import dataclass, field

from events.compatibility.budget import Budget, Mismatch
from gateway.schemas.avro import MISSING, Field, Node

_PROMOTED = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""Types to which a reader may promote a writer's primitive."""


def find_avro_mismatch(reader: Node, writer: Node, budget: Budget) -> Mismatch | None:
    """Return why the reader cannot read all that the writer may write, or None. Raises TooComplex."""
    return _Reading(budget).compare(reader, writer, "")


@dataclass(slots=True)
class _Reading:
    budget: Budget
    results: dict[tuple[int, int], Mismatch | None] = field(default_factory=dict)

    def compare(self, reader: Node, writer: Node, at: str) -> Mismatch | None:
        """Compare two types. A pair that is met again deeper is assumed to be readable, as data is finite."""
        with self.budget.step():
            pair = (id(reader), id(writer))
            if pair not in self.results:
                self.results[pair] = None
                self.results[pair] = self._compared(reader, writer, at)
            return self.results[pair]

    def _compared(self, reader: Node, writer: Node, at: str) -> Mismatch | None:
        if writer.kind == "union":
            failures = (self.compare(reader, branch, f"{at}/{number}") for number, branch in enumerate(writer.branches))
            return next((failure for failure in failures if failure is not None), None)
        if reader.kind == "union":
            return self._of_union(reader, writer, at)
        if reader.kind != writer.kind:
            if reader.kind in _PROMOTED.get(writer.kind, ()):
                return None
            return Mismatch(at, f"{writer.label} cannot be read as {reader.label}", "TYPE_MISMATCH")
        if reader.kind in ("record", "enum", "fixed"):
            return self._named(reader, writer, at)
        if reader.items is not None and writer.items is not None:
            return self.compare(reader.items, writer.items, f"{at}/{'items' if reader.kind == 'array' else 'values'}")
        return None

    def _of_union(self, reader: Node, writer: Node, at: str) -> Mismatch | None:
        """Try each branch; results that rest on a branch that failed are forgotten."""
        for branch in reader.branches:
            before = len(self.results)
            if self.compare(branch, writer, at) is None:
                return None
            while len(self.results) > before:
                self.results.popitem()
        return Mismatch(at, f"no branch of the union reads {writer.label}", "MISSING_UNION_BRANCH")

    def _named(self, reader: Node, writer: Node, at: str) -> Mismatch | None:
        if reader.unqualified != writer.unqualified and writer.name not in reader.aliases:
            return Mismatch(f"{at}/name", f"expected {reader.name}, was {writer.name}", "NAME_MISMATCH")
        if reader.kind == "fixed":
            if reader.size != writer.size:
                return Mismatch(f"{at}/size", f"expected {reader.size}, was {writer.size}", "FIXED_SIZE_MISMATCH")
            return None
        if reader.kind == "enum":
            missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if missing and reader.default is MISSING:
                return Mismatch(f"{at}/symbols", f"missing {', '.join(missing)[:200]}", "MISSING_ENUM_SYMBOLS")
            return None
        return self._record(reader, writer, at)

    def _record(self, reader: Node, writer: Node, at: str) -> Mismatch | None:
        written = {source.name: source for source in writer.fields}
        for number, target in enumerate(reader.fields):
            here = f"{at}/fields/{number}"
            source = _source(target, written)
            if source is not None:
                failure = self.compare(target.node, source.node, f"{here}/type")
            elif target.default is MISSING:
                failure = Mismatch(here, f"{target.name} has no default", "READER_FIELD_MISSING_DEFAULT_VALUE")
            else:
                failure = None
            if failure is not None:
                return failure
        return None


def _source(target: Field, written: dict[str, Field]) -> Field | None:
    """Return the writer's field that a reader's field is read from: by its name, then by its aliases."""
    return next((written[name] for name in (target.name, *target.aliases) if name in written), None)
