"""The one path that every call takes: authenticate, limit, handle, meter."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.authenticate import ANONYMOUS, Authenticator
from gateway.call import ABANDONED, Call, Reply
from gateway.limit import limit, release
from gateway.limiter import Limiter
from gateway.limits.refused_calls import RefusedCalls
from gateway.meter import Meter
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps of the path, each with the part that it uses."""

    authenticator: Authenticator
    limiter: Limiter
    handle: Callable[[Call], Awaitable[Reply]]
    meter: Meter
    refused_calls: RefusedCalls = field(default_factory=RefusedCalls)

    async def run(self, call: Call, handling: Awaitable[Reply] | None = None) -> Reply:
        """Run one call through the path and return its reply. Never raises but for cancellation.

        A call is one request, or one connection for all its life. It is metered exactly once, also when it was
        refused, failed or abandoned. One that is ``handling`` already was admitted by :mod:`gateway.server.carrier`.
        """
        reply = ABANDONED
        try:
            if handling is None:
                await self._admit(call)
                handling = self.handle(call)
            reply = await handling
        except Refused as raised:
            is_proved = call.principal is not None and call.principal is not ANONYMOUS
            refused = raised if is_proved else self.refused_calls.charged(call.ip, raised)
            reply = Reply(status=refused.status, refused=refused.bare())
            if call.tcp is not None and refused.status < 500:
                call.tcp.unproved()
        except ClientGone:
            pass
        except Exception:
            trace = {"traceparent": call.traceparent}
            logger.exception("call failed: %s %s %s", call.protocol, call.method, call.target, extra=trace)
            reply = Reply(status=500, refused=Refused(Reason.INTERNAL))
        finally:
            release(self.limiter, call)
            self.meter.count(call, reply)
        return reply

    async def _admit(self, call: Call) -> None:
        """Authenticate and limit a call. Raises Refused."""
        try:
            call.principal = await self.authenticator.authenticate(call)
        except Refused:
            if call.principal is not None:
                # The caller is proved and lacks a right: the refusal counts as its request.
                await limit(self.limiter, call)
            raise
        if call.tcp is not None and call.principal is not ANONYMOUS:
            call.tcp.proved()
        await limit(self.limiter, call)
