"""The bounds of a comparison, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from gateway.schemas.faults import TooComplex

STEPS_MAX = 40_000
"""Of one request: about a second, whatever the schemas."""
DEPTH_MAX = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one schema cannot stand in for the other."""

    pointer: str
    """Where in the schema that reads."""
    said: str
    kind: str
    """A label such as Confluent's registry gives."""

    def __str__(self) -> str:
        return f"{self.kind} at #{self.pointer}: {self.said}"


@dataclass(slots=True)
class Budget:
    """How much a comparison may still do; counted in steps, so that it ends alike on every machine."""

    steps_left: int = STEPS_MAX
    depth: int = field(default=0)

    def step(self) -> Budget:
        """Take a step, and go down a level for as long as the block lasts. Raises TooComplex."""
        self.steps_left -= 1
        if self.steps_left < 0 or self.depth >= DEPTH_MAX:
            raise TooComplex("The schemas are too complex to be compared.")
        return self

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.depth -= 1
