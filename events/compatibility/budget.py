"""The bounds of a comparison, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from gateway.schemas.errors import TooComplex

STEPS_MAX = 40_000
"""Steps of one request: about a second, whatever the schemas."""
SMALL_PER_STEP = 32
"""Small steps in a step: one for each item of a list in a schema, which may be traversed at every step."""
DEPTH_MAX = 60


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why one schema cannot replace the other."""

    pointer: str
    """Place in the reader's schema."""
    message: str
    kind: str
    """A label as Confluent's registry uses them, such as ``TYPE_NARROWED``."""

    def __str__(self) -> str:
        return f"{self.kind} at #{self.pointer}: {self.message}"


@dataclass(slots=True)
class Budget:
    """The work that a comparison may still do, counted in steps so that the result is the same on every machine."""

    steps_left: float = STEPS_MAX
    depth: int = field(default=0)

    def step(self) -> Budget:
        """Spend a step and return a context manager that descends one level. Raises TooComplex."""
        self.spend(SMALL_PER_STEP)
        if self.depth >= DEPTH_MAX:
            raise TooComplex("The schemas are too complex to be compared.")
        return self

    def spend(self, small: int) -> None:
        """Spend small steps, one for each item that is traversed. Raises TooComplex."""
        self.steps_left -= small / SMALL_PER_STEP
        if self.steps_left < 0:
            raise TooComplex("The schemas are too complex to be compared.")

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.depth -= 1
