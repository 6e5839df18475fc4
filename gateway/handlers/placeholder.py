"""Refuses the calls of routes whose handler is a placeholder: an import found one that the gateway does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane


async def refuse(plane: Plane, call: Call) -> Reply:
    """Raise Refused ``not-configured``."""
    assert call.route is not None, "placeholders are handlers of routes"
    raise Refused(Reason.NOT_CONFIGURED, f"The handler {call.route.handler['name']} of this route is a placeholder.")
