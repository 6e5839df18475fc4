"""Handle: apply the policies of the route, and run the handler of the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.call import Call, Reply
from gateway.limiter import Limiter
from gateway.policies import OutgoingAnswer, Policies
from gateway.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Runs calls under the policies of their routes."""

    policies: Policies
    limiter: Limiter
    run_handler: Callable[[Call], Awaitable[Reply]]
    """Runs the handler that the call names. Raises Refused and ClientGone."""

    async def handle(self, call: Call) -> Reply:
        """Run the call's handler, under the policies of its route. Raises Refused and ClientGone."""
        admitting = self.policies.inbound(call)
        if admitting is not None:
            return await self._policed(call, admitting)
        return await self.run_handler(call)

    async def _policed(self, call: Call, admitting: Awaitable[OutgoingAnswer | None]) -> Reply:
        """Do as ``handle`` where policies have to wait, may answer the call, or see its answer."""
        answer = await admitting
        if answer is not None:
            return await self._send(call, answer)
        try:
            reply = await self.run_handler(call)
        finally:
            if call.at_end is not None:
                await call.at_end()
        if reply.status and call.protocol is not Protocol.WEBSOCKET:
            reply.status = getattr(call.peer, "status", 0) or reply.status
        return reply

    async def _send(self, call: Call, answer: OutgoingAnswer) -> Reply:
        """Send the answer of a policy."""
        body = answer.body or b""
        limits = self.limiter.headers(call)
        headers = [*answer.headers, (b"content-length", str(len(body)).encode()), *limits]
        if call.protocol is Protocol.WEBSOCKET:
            await call.peer.answer(answer.status, headers, body)
        else:
            await call.peer.start(answer.status, headers)
            await call.peer.send(body, more=False)
        return Reply(status=answer.status, bytes_out=len(body))
