"""What is to be proved of an instance, and the interface of the prover that the rules of keywords use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from events.compatibility.budget import Mismatch
from events.compatibility.json_documents import Schema
from events.compatibility.json_facts import Facts, Known

Proof = Mismatch | None
"""None if proved."""


class Prover(Protocol):
    """Proves that one schema is contained in another; see :mod:`events.compatibility.json_schema`."""

    def inside(self) -> AbstractContextManager[None]:
        """Descend one level of the instance for the block."""

    def contains(self, known: Known, new: Schema, at: str, *, fills: bool = False) -> Proof:
        """Prove that every instance of what is known satisfies a schema."""

    def impossible(self, known: Known) -> bool:
        """Return whether it is proved that no instance satisfies what is known."""


@dataclass(slots=True)
class Goal:
    """A schema to be proved for every instance of what is known."""

    prover: Prover
    known: Known
    facts: Facts
    new: Schema
    keywords: dict[str, Any]
    at: str
    fills: bool
    """A missing member may be filled in with its default."""

    def failure(self, word: str, message: str, kind: str) -> Mismatch:
        """Return the failed proof of a keyword."""
        return Mismatch(f"{self.at}/{word}", message, kind)

    def within(self, parts: tuple[Schema, ...], raw: Any, at: str) -> Proof:
        """Prove that a member or an item, of which ``parts`` are known, satisfies a schema."""
        with self.prover.inside():
            return self.prover.contains(Known(parts), self.new.inner(raw), f"{self.at}/{at}", fills=self.fills)

    def never(self, parts: tuple[Schema, ...]) -> bool:
        """Return whether it is proved that no member or item satisfies ``parts``."""
        with self.prover.inside():
            return self.prover.impossible(Known(parts))
