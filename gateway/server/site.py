"""What the HTTP connections of a process serve, and their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.config import Config
from gateway.listening.capacity import Capacity, overloaded
from gateway.listening.memory import Level
from gateway.protocols.problem import closing
from gateway.refusals import Refused

if TYPE_CHECKING:
    from gateway.plane import Plane

CEILING_EXCEEDED = closing(overloaded("connection-ceiling"))
"""The answer to a connection that is closed because of a ceiling."""
PROBES = frozenset({b"/healthz", b"/readyz"})
"""Answered however scarce memory is: a process that is alive must not be taken for dead."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """What the connections of this process serve, and their bounds."""

    bounds: Config
    plane: Callable[[], Plane | None]
    """Returns the data plane, which takes calls without ASGI messages; if None, the application gets every request."""
    is_elsewhere: Callable[[bytes], bool]
    """Returns whether a path belongs to the application and not to the data plane."""
    refused: Callable[[Refused], None]
    """Counts a refusal of what never became a call."""
    capacity: Capacity
    """How many connections, and how much memory, this process may have."""
    is_carrying: bool = True
    """Whether plain calls are carried by callbacks; the path serves all calls alike."""
    open: set[Any] = field(default_factory=set)
    """The open HTTP connections, whose deadlines are swept."""

    def scarcity(self, target: bytes) -> Refused | None:
        """Return why a request is refused whatever it asks for, if memory is scarce; its target names its path."""
        if self.capacity.memory.level is Level.ENOUGH:
            return None
        path = target.partition(b"?")[0]
        if path in PROBES:
            return None
        return self.capacity.refusal(is_anonymous=self.plane() is not None and self.is_elsewhere(path))
