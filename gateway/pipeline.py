"""The one path that every call takes: authenticate, limit, handle, meter."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.authenticate import authenticate
from gateway.call import Call, Reply, abandoned
from gateway.handle import handle
from gateway.limit import limit, release
from gateway.meter import meter
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)


async def run(plane: Plane, call: Call) -> Reply:
    """Take one call down the path and say what became of it.

    A call is one request, or one connection for all its life. It is metered exactly once: also when it was
    refused, failed or abandoned.
    """
    reply = abandoned()
    try:
        call.principal = await authenticate(plane, call)
        await limit(plane, call)
        reply = await handle(plane, call)
    except Refused as refused:
        reply = Reply(status=refused.status, refused=refused.bare())
    except ClientGone:
        pass
    except Exception:
        trace = {"traceparent": call.traceparent}
        logger.exception("call failed: %s %s %s", call.protocol, call.method, call.target, extra=trace)
        reply = Reply(status=500, refused=Refused(Reason.INTERNAL))
    finally:
        release(plane, call)
        meter(plane, call, reply)
    return reply
