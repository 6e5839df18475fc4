"""What is wrong with a schema, and where."""

from __future__ import annotations


class SchemaFault(ValueError):
    """A schema that cannot be used; its message may be shown to whoever wrote it."""

    def __init__(self, said: str, pointer: str = "") -> None:
        super().__init__(f"{said} (at {pointer})" if pointer else said)
        self.pointer = pointer


class TooComplex(SchemaFault):
    """Whether schemas are compatible cannot be told within the bounds of :mod:`events.compatibility`."""
