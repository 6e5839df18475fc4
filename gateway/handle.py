"""Handle: send the call where it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply

if TYPE_CHECKING:
    from gateway.plane import Plane


async def handle(plane: Plane, call: Call) -> Reply:
    """Do what the call asks for; it was let in. Raises Refused and ClientGone."""
    return await plane.handlers[call.handler](plane, call)
