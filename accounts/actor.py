"""Who acts at the moment, and from which network address, for the audit log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Actor:
    """An operator or a command; ``address`` is empty for a command."""

    name: str
    address: str = ""

    def note(self, text: str = "") -> str:
        """Return a note for the audit log that ends with the address."""
        origin = f"from {self.address}" if self.address else ""
        return ", ".join(part for part in (text, origin) if part)


_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


@contextmanager
def acting(name: str, address: str = "") -> Iterator[None]:
    """Set who acts within the block."""
    token = _current.set(Actor(name, address))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Actor:
    """Return who acts: of the innermost block, or else the command that runs."""
    return _current.get() or Actor(_command())


def _command() -> str:
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    return f"{name} {arguments[0]}" if name == "manage.py" and arguments else name or "python"
