"""``POST /v1/tickets``: issues connect tickets, for the WebSockets and event streams of browsers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.contracts.rights import may_anything
from gateway.handlers.requests import read_object, require_no_query
from gateway.handlers.responses import send_json
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane


async def issue(plane: Plane, call: Call) -> Reply:
    """Answer 201 with a ticket that proves what the caller's credential does, once or for one stream (`resumable`).

    Raises Refused ``forbidden`` for a credential without any right: there is nothing that its ticket could open.
    """
    require_no_query(call)
    options, size = await read_object(call)
    resumable = options.pop("resumable", False)
    if options or not isinstance(resumable, bool):
        raise Refused(Reason.INVALID_REQUEST, "The only field is `resumable`, which is true or false.")
    if not may_anything(call.caller):
        raise Refused(Reason.FORBIDDEN, "This key has no right that a ticket could use.")
    ticket = await plane.tickets.issue(call.caller, resumable=resumable)
    answer = {"ticket": ticket, "expires_in_s": plane.config.ticket_s}
    if resumable:
        answer["idle_s"] = plane.config.ticket_idle_s
    return await send_json(plane.limiter, call, 201, answer, bytes_in=size)
