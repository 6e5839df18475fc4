"""Handle: send the call where it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import policies
from gateway.call import Call, Reply

if TYPE_CHECKING:
    from gateway.plane import Plane


async def handle(plane: Plane, call: Call) -> Reply:
    """Do what the call asks for, by the policies of its route. Raises Refused and ClientGone."""
    if call.route is not None:
        policies.inbound(call)
    return await plane.handlers[call.handler](plane, call)
