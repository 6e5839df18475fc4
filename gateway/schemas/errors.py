"""What is wrong with a schema, and where."""

from __future__ import annotations


class InvalidSchema(ValueError):
    """The schema cannot be used; the message is safe to show to its author."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(f"{message} (at {pointer})" if pointer else message)
        self.pointer = pointer


class TooComplex(InvalidSchema):
    """The compatibility of two schemas cannot be decided within the bounds of :mod:`events.compatibility`."""
