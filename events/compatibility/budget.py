"""The bounds of a comparison, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from gateway.schemas.errors import TooComplex

STEPS_MAX = 40_000
"""Of one request: about a second, whatever the schemas."""
SMALL_PER_STEP = 32
"""What a list of a schema costs, an item; it may be as long as a text can be, and be gone through at every step."""
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

    steps_left: float = STEPS_MAX
    depth: int = field(default=0)

    def step(self) -> Budget:
        """Take a step, and go down a level for as long as the block lasts. Raises TooComplex."""
        self.spend(SMALL_PER_STEP)
        if self.depth >= DEPTH_MAX:
            raise TooComplex("The schemas are too complex to be compared.")
        return self

    def spend(self, small: int) -> None:
        """Take as many small steps: one for each of the things that are gone through. Raises TooComplex."""
        self.steps_left -= small / SMALL_PER_STEP
        if self.steps_left < 0:
            raise TooComplex("The schemas are too complex to be compared.")

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.depth -= 1
