"""Whether data written by one Avro schema can be read by another (specification 1.12, "Schema Resolution")."""

from __future__ import annotations

from dataclasses import dataclass, field

from events.compatibility.budget import Budget, Fault
from gateway.schemas.avro import MISSING, Field, Node

_PROMOTED = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""What a reader may read a writer's primitive as."""


def unreadable(reader: Node, writer: Node, budget: Budget) -> Fault | None:
    """Say why the reader cannot read all that the writer may write; None where it can. Raises TooComplex."""
    return _Reading(budget).fault(reader, writer, "")


@dataclass(slots=True)
class _Reading:
    budget: Budget
    known: dict[tuple[int, int], Fault | None] = field(default_factory=dict)

    def fault(self, reader: Node, writer: Node, at: str) -> Fault | None:
        """Compare two types. A pair met again on the way down is taken for readable: data is finite."""
        with self.budget.step():
            pair = (id(reader), id(writer))
            if pair not in self.known:
                self.known[pair] = None
                self.known[pair] = self._compared(reader, writer, at)
            return self.known[pair]

    def _compared(self, reader: Node, writer: Node, at: str) -> Fault | None:
        if writer.kind == "union":
            faults = (self.fault(reader, branch, f"{at}/{number}") for number, branch in enumerate(writer.branches))
            return next((fault for fault in faults if fault is not None), None)
        if reader.kind == "union":
            return self._of_union(reader, writer, at)
        if reader.kind != writer.kind:
            if reader.kind in _PROMOTED.get(writer.kind, ()):
                return None
            return Fault(at, f"{writer.label} cannot be read as {reader.label}", "TYPE_MISMATCH")
        if reader.kind in ("record", "enum", "fixed"):
            return self._named(reader, writer, at)
        if reader.items is not None and writer.items is not None:
            return self.fault(reader.items, writer.items, f"{at}/{'items' if reader.kind == 'array' else 'values'}")
        return None

    def _of_union(self, reader: Node, writer: Node, at: str) -> Fault | None:
        """A fault found inside a guess is no knowledge: what was assumed for it is forgotten."""
        for branch in reader.branches:
            known_before = len(self.known)
            if self.fault(branch, writer, at) is None:
                return None
            while len(self.known) > known_before:
                self.known.popitem()
        return Fault(at, f"no branch of the union reads {writer.label}", "MISSING_UNION_BRANCH")

    def _named(self, reader: Node, writer: Node, at: str) -> Fault | None:
        if reader.unqualified != writer.unqualified and writer.name not in reader.aliases:
            return Fault(f"{at}/name", f"expected {reader.name}, was {writer.name}", "NAME_MISMATCH")
        if reader.kind == "fixed":
            if reader.size != writer.size:
                return Fault(f"{at}/size", f"expected {reader.size}, was {writer.size}", "FIXED_SIZE_MISMATCH")
            return None
        if reader.kind == "enum":
            missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if missing and reader.default is MISSING:
                return Fault(f"{at}/symbols", f"missing {', '.join(missing)[:200]}", "MISSING_ENUM_SYMBOLS")
            return None
        return self._record(reader, writer, at)

    def _record(self, reader: Node, writer: Node, at: str) -> Fault | None:
        written = {source.name: source for source in writer.fields}
        for number, wanted in enumerate(reader.fields):
            here = f"{at}/fields/{number}"
            source = _source(wanted, written)
            if source is not None:
                fault = self.fault(wanted.node, source.node, f"{here}/type")
            elif wanted.default is MISSING:
                fault = Fault(here, f"{wanted.name} has no default", "READER_FIELD_MISSING_DEFAULT_VALUE")
            else:
                fault = None
            if fault is not None:
                return fault
        return None


def _source(wanted: Field, written: dict[str, Field]) -> Field | None:
    """Give the writer's field that the reader's is read from: by its name, then by its aliases."""
    return next((written[name] for name in (wanted.name, *wanted.aliases) if name in written), None)
