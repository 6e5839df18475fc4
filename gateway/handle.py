"""Handle: send the call where it goes."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from gateway import policies
from gateway.call import Call, Reply
from gateway.protocol import Protocol

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.policies import Answered


async def handle(plane: Plane, call: Call) -> Reply:
    """Do what the call asks for, by the policies of its route. Raises Refused and ClientGone."""
    waiting = policies.inbound(plane, call)
    if waiting is not None:
        return await _policed(plane, call, waiting)
    return await plane.handlers[call.handler](plane, call)


async def _policed(plane: Plane, call: Call, waiting: Awaitable[Answered | None]) -> Reply:
    """Do as ``handle`` where policies have to wait, may answer by themselves, or look at the answer."""
    answered = await waiting
    if answered is not None:
        return await _answer(plane, call, answered)
    try:
        reply = await plane.handlers[call.handler](plane, call)
    finally:
        if call.at_end is not None:
            await call.at_end()
    if reply.status and call.protocol is not Protocol.WEBSOCKET:
        reply.status = getattr(call.peer, "status", 0) or reply.status
    return reply


async def _answer(plane: Plane, call: Call, answered: Answered) -> Reply:
    """Answer what a policy has said."""
    body = answered.body or b""
    headers = [*answered.headers, (b"content-length", str(len(body)).encode()), *plane.limiter.headers(call)]
    if call.protocol is Protocol.WEBSOCKET:
        await call.peer.answer(answered.status, headers, body)
    else:
        await call.peer.start(answered.status, headers)
        await call.peer.send(body, more=False)
    return Reply(status=answered.status, bytes_out=len(body))
