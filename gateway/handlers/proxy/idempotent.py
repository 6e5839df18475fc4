"""Sends a request with an idempotency key once, whatever becomes of its caller, and answers repeats with its response.

The IETF draft `draft-ietf-httpapi-idempotency-key-header`. docs/configuration.md says what is kept, and for how long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Reply
from gateway.concurrency.stopping import discard, stop_tasks
from gateway.durable.first_responses import Claim, Record, State
from gateway.handlers.proxy.answer import OF_UPSTREAMS
from gateway.handlers.proxy.forwarding import Forwarding, forwarding_of
from gateway.handlers.proxy.recorded_exchange import RecordedExchange
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused
from gateway.upstream.connection import timed_out
from gateway.wire.digest import digest_of
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

Forward = Callable[["Plane", Call], Awaitable[Reply]]

logger = logging.getLogger(__name__)

REPEAT_AFTER_S = 1.0
ATTEMPTS_MAX = 1_024
"""Requests with a key that a process makes at a time."""
NOT_SENT = frozenset({"upstream-unreachable", "upstream-connect-timeout", "upstream-credential"})
"""Causes for which nothing was sent to the upstream."""
DO_AGAIN = frozenset({408, 425, 429, 503})
"""Statuses by which an upstream wants the same request later: they are not kept."""
REPLAYED = (b"idempotency-replayed", b"true")
GOES_ON = " It is still in progress: send it again with the same Idempotency-Key for its response."
NOT_KNOWN = "Whether the upstream acted on it is not known; use another key to send it once more."


async def send_once(plane: Plane, call: Call, key: str, forward: Forward) -> Reply:
    """Forward the request if it is the first of its key, or else answer as the first was. Raises Refused."""
    body = await call.peer.read_all()
    fingerprint = digest_of((call.method.encode(), call.raw_path, call.query, body))
    record_id = digest_of((call.caller.consumer.encode(), call.target.encode(), key.encode("latin-1", "replace")))
    if len(plane.first_responses.attempts) >= ATTEMPTS_MAX:
        raise Refused(Reason.OVERLOADED, retry_after_s=REPEAT_AFTER_S)
    first = await plane.first_responses.claim(record_id, fingerprint)
    if isinstance(first, Record):
        return await _repeat(plane, call, first, fingerprint)
    return await _first(plane, call, first, forward)


async def _repeat(plane: Plane, call: Call, first: Record, fingerprint: str) -> Reply:
    if first.fingerprint != fingerprint:
        raise Refused(
            Reason.INVALID_PAYLOAD, "This Idempotency-Key was used with another request.", cause="idempotency-conflict"
        )
    if first.state is State.RUNNING and not first.is_lost:
        raise Refused(Reason.IN_FLIGHT, retry_after_s=REPEAT_AFTER_S)
    if first.state is State.TOO_LARGE:
        detail = f"The first request with this key was answered with {first.status}, and a body too large to keep."
        raise Refused(Reason.GONE, detail, cause="idempotency-not-kept")
    if first.state is not State.ANSWERED:
        reason = Reason(first.reason or Reason.UPSTREAM_UNAVAILABLE)
        raise Refused(reason, f"The first request with this key has failed. {NOT_KNOWN}", cause="idempotency-failed")
    if not plane.limiter.charge_now(call, bytes_out=len(first.body)):
        await plane.limiter.charge(call, bytes_out=len(first.body))
    await call.peer.start(first.status, [*first.headers, *plane.limiter.headers(call), REPLAYED])
    await call.peer.send(first.body, more=False)
    return Reply(status=first.status, bytes_in=call.peer.bytes_in, bytes_out=len(first.body))


async def _first(plane: Plane, call: Call, claim: Claim, forward: Forward) -> Reply:
    """Forward the request in a task of its own, and wait for it as long as the caller and the route do."""
    assert call.route is not None, "upstreams are reached by routes"
    forwarding = forwarding_of(call.route)
    exchange = RecordedExchange(call.peer)
    lasting = replace(call, peer=exchange, route=forwarding.patient_route)
    attempt = asyncio.create_task(_attempt(plane, lasting, exchange, claim, forward), name="idempotent request")
    plane.first_responses.attempts.add(attempt)
    attempt.add_done_callback(plane.first_responses.attempts.discard)
    attempt.add_done_callback(discard)
    try:
        return await _wait(plane, call, forwarding, exchange, attempt)
    finally:
        exchange.detach()
        call.peer.watch(None)


async def _wait(
    plane: Plane, call: Call, forwarding: Forwarding, exchange: RecordedExchange, attempt: asyncio.Task[Reply]
) -> Reply:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call.peer.watch(lambda: None if gone.done() else gone.set_result(None))
    within_s = forwarding.timeouts_for(call, plane.config).first_byte_s or plane.config.upstream_first_byte_timeout_s
    ends: set[asyncio.Future[Any]] = {attempt, gone}
    await asyncio.wait({*ends, exchange.answered}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    if exchange.answered.done():
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if attempt.done():
        return attempt.result()
    if gone.done():
        raise ClientGone
    late = timed_out(within_s)
    raise Refused(late.reason, late.detail + GOES_ON, retry_after_s=REPEAT_AFTER_S)


async def _attempt(plane: Plane, call: Call, exchange: RecordedExchange, claim: Claim, forward: Forward) -> Reply:
    """Forward the request and keep what becomes of it."""
    keeping = asyncio.create_task(claim.keep(), name="idempotency key")
    outcome: Record | None = replace(claim.record, state=State.FAILED)
    try:
        reply = await forward(plane, call)
        outcome = _answered(claim.record, exchange)
        return reply
    except Refused as refused:
        is_sent = refused.reason in OF_UPSTREAMS and refused.cause not in NOT_SENT
        outcome = replace(claim.record, state=State.FAILED, reason=refused.reason.value) if is_sent else None
        raise
    finally:
        await stop_tasks(keeping)
        try:
            await claim.settle(outcome)
        except Exception:
            logger.exception("the response to a request with an idempotency key could not be kept")


def _answered(record: Record, exchange: RecordedExchange) -> Record | None:
    if exchange.status in DO_AGAIN:
        return None
    if exchange.is_too_large:
        return replace(record, state=State.TOO_LARGE, status=exchange.status)
    headers: Headers = [
        header for header in exchange.headers if not header[0].startswith((b"ratelimit", b"x-ratelimit"))
    ]
    return replace(record, state=State.ANSWERED, status=exchange.status, headers=headers, body=bytes(exchange.body))
