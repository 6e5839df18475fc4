"""Pull delivery of a durable subscription: fetch, acknowledge, negatively acknowledge, and extend."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.connections.in_flight import recheck
from gateway.durable.dead_letter import UNWRITABLE, is_writable, store_dead_letter
from gateway.durable.readers import BATCH_MAX, Delivery
from gateway.durable.standing import standing
from gateway.durable.withheld import COUNTS_MAX
from gateway.handlers.channel import charge_read
from gateway.handlers.requests import query_values, read_object, require_no_query, whole_number
from gateway.handlers.responses import send_body, send_json
from gateway.handlers.subscription import own
from gateway.identity.rights import require
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Metric
from gateway.snapshot.subscriptions import Subscription, Type, ack_wait_s

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot.picture import Channel

LIMIT_DEFAULT = 100
WAIT_MAX_S = 30.0
WAIT_MAX_CHARS = 32
RECHECK_S = 2.0
"""How often a waiting call checks its rights, and whether this process is draining."""
IDS_MAX = 1000
DELAY_MAX_S = 12 * 3600
_NUMBER = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
"""``float`` accepts more: underscores, spaces, infinity."""
_ID = re.compile(r"([0-9]{1,19})(?:\.[0-9]{1,19}\.[0-9]{1,10})?")


async def pull(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}/events?limit=&wait_s=``: pending events, or the first to arrive."""
    query = query_values(call, {"limit", "wait_s"})
    limit = whole_number("limit", query.get("limit", str(LIMIT_DEFAULT)), BATCH_MAX)
    ends_at = time.monotonic() + _wait_s(query.get("wait_s", "0"))
    gone = asyncio.ensure_future(call.peer.gone())
    try:
        while True:
            subscription, channel = await _readable(plane, call)
            most = min(limit, await _remaining(plane, call))
            wait_s = min(max(ends_at - time.monotonic(), 0), RECHECK_S)
            fetched = await _fetch(plane, subscription, channel, most, wait_s)
            current = await _without_expired(plane, fetched)
            deliveries = await _without_poison(plane, subscription, channel, current)
            is_over = time.monotonic() >= ends_at or plane.draining
            if gone.done():
                await _withhold(plane, subscription, channel, deliveries)
                raise ClientGone
            if deliveries or (is_over and not fetched):
                break
        sent = await _charge(plane, call, subscription, channel, deliveries)
    finally:
        await stop_tasks(gone)
    results = ",".join(_envelope(one, subscription.ack_wait_s) for one in sent)
    reply = await send_body(plane.limiter, call, 200, f'{{"results":[{results}]}}'.encode())
    reply.messages_out = len(sent)
    return reply


async def ack(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/ack`` ``{"ids": […]}``: these events are processed; ``seconds`` is ignored."""
    require_no_query(call)
    subscription, channel = await _readable(plane, call)
    ids, _, size = await _read_ids(call)
    unknown = await plane.readers.ack_ids(subscription, channel, ids)
    return await _answer(plane, call, ids, unknown, size)


async def nack(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/nack`` ``{"ids": […], "seconds": 0}``: redeliver these events after a delay."""
    require_no_query(call)
    subscription, channel = await _readable(plane, call)
    ids, seconds, size = await _read_ids(call)
    unknown = await plane.readers.nak_ids(subscription, channel, ids, seconds or 0)
    return await _answer(plane, call, ids, unknown, size)


async def extend(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/extend`` ``{"ids": […], "seconds": 60}``: do not redeliver these events before then."""
    require_no_query(call)
    subscription, channel = await _readable(plane, call)
    ids, seconds, size = await _read_ids(call)
    seconds = subscription.ack_wait_s if seconds is None else seconds
    unknown = await plane.readers.nak_ids(subscription, channel, ids, max(seconds, 0.001))
    return await _answer(plane, call, ids, unknown, size)


async def _readable(plane: Plane, call: Call) -> tuple[Subscription, Channel]:
    """Return the caller's own pull subscription and its channel. Raises Refused where it may not read them now."""
    plane.log.require_available()
    subscription = own(plane, call)
    if subscription.type != Type.PULL:
        raise Refused(Reason.INVALID_REQUEST, "The events of this subscription are sent to its URL.")
    recheck(plane.snapshot, call)
    if call.caller.expires_at is not None and call.caller.expires_at <= time.time():
        raise Refused(Reason.TOKEN_EXPIRED)
    require(call.caller, subscription.right)
    status = standing(plane.snapshot, subscription, time.time())
    if not status.may_deliver:
        raise Refused(
            Reason.FORBIDDEN, f"The subscription is {status.state.value}: {status.reason}.", cause="subscription-paused"
        )
    channel = await plane.readers.channel_of(plane.snapshot, subscription)
    assert channel is not None, "part of the standing"
    return subscription, channel


async def _fetch(
    plane: Plane, subscription: Subscription, channel: Channel, limit: int, wait_s: float
) -> list[Delivery]:
    wait_for_ack_s = ack_wait_s(subscription, plane.config.webhook_timeout_s)
    await plane.readers.ensure(subscription, channel, wait_for_ack_s)
    try:
        deliveries = await plane.readers.fetch(subscription, channel, limit, wait_s)
    except LookupError:
        await plane.readers.ensure(subscription, channel, wait_for_ack_s)
        deliveries = await plane.readers.fetch(subscription, channel, limit, wait_s)
    return await plane.withheld.discount(subscription.id, deliveries)


async def _without_expired(plane: Plane, fetched: list[Delivery]) -> list[Delivery]:
    """Acknowledge the events that have expired; they are no dead letters. Returns the others."""
    now = time.time()
    for one in fetched:
        if one.event.has_expired(now):
            await plane.readers.ack(one)
    return [one for one in fetched if not one.event.has_expired(now)]


async def _without_poison(
    plane: Plane, subscription: Subscription, channel: Channel, fetched: list[Delivery]
) -> list[Delivery]:
    """Move events that were delivered too often, or cannot be written, to the dead letters. Returns the others."""
    good = []
    for one in fetched:
        tries = one.attempt - 1
        if tries < subscription.max_attempts and is_writable(one.event):
            good.append(one)
            continue
        detail = f"Delivered {tries} times and never acknowledged." if is_writable(one.event) else UNWRITABLE
        await store_dead_letter(plane.log, channel, subscription, one, max(tries, 1), detail)
        await plane.readers.ack(one)
    return good


async def _remaining(plane: Plane, call: Call) -> int:
    """Return how many messages the limits allow now; at least one, so that charging it is refused with a reason."""
    if not call.caller.limits:
        return BATCH_MAX
    await plane.limiter.look(call.caller, call)
    remaining = [
        fact["remaining"]
        for fact in plane.limiter.left(call.caller, call)
        if fact["metric"] == Metric.MESSAGES_OUT.value
        and (fact["mode"], fact["exceed"]) == ("enforce", "reject")
        and fact["remaining"] is not None
    ]
    return max(1, int(min(remaining, default=BATCH_MAX)))


async def _charge(
    plane: Plane, call: Call, subscription: Subscription, channel: Channel, deliveries: list[Delivery]
) -> list[Delivery]:
    """Charge ``messages_out``, and withhold what the limits do not allow now. Returns the others. Raises Refused."""
    if not deliveries:
        return deliveries
    count = 0
    try:
        await _readable(plane, call)  # the caller may have lost its rights while it waited
        count = len(await charge_read(plane, call, [one.event for one in deliveries]))
    finally:
        await _withhold(plane, subscription, channel, deliveries[count:])
    return deliveries[:count]


async def _withhold(plane: Plane, subscription: Subscription, channel: Channel, deliveries: list[Delivery]) -> None:
    """Have these events redelivered at once; this delivery does not count as an attempt."""
    if not deliveries:
        return
    if await plane.withheld.add(subscription.id, deliveries) > COUNTS_MAX:
        progress = await plane.readers.progress(subscription, channel)
        await plane.withheld.forget(subscription.id, progress.acked_id)
    for one in deliveries:
        await plane.readers.nak(one, 0)


async def _read_ids(call: Call) -> tuple[list[int], float | None, int]:
    """Read the ids (of events or of deliveries), the seconds, and the length of the body. Raises Refused."""
    body, size = await read_object(call)
    if set(body) - {"ids", "seconds"}:
        raise Refused(Reason.INVALID_REQUEST, "The fields are `ids` and `seconds`.")
    ids, seconds = body.get("ids"), body.get("seconds")
    if not isinstance(ids, list) or not 1 <= len(ids) <= IDS_MAX:
        raise Refused(Reason.INVALID_REQUEST, f"`ids` must be a list of 1 to {IDS_MAX} ids.")
    matches = [_ID.fullmatch(one) if isinstance(one, str) else None for one in ids]
    sequences = [int(match[1]) for match in matches if match is not None]
    if len(sequences) != len(ids):
        raise Refused(Reason.INVALID_REQUEST, "Each id must be the `id` of an event or of its `delivery`, as a string.")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds <= DELAY_MAX_S):
        raise Refused(Reason.INVALID_REQUEST, f"`seconds` is a number from 0 to {DELAY_MAX_S}.")
    return sequences, seconds, size


async def _answer(plane: Plane, call: Call, ids: list[int], unknown: list[int], size: int) -> Reply:
    """Answer with the accepted ids, and with the unknown ones, which were acknowledged before or never delivered."""
    excluded = set(unknown)
    value = {"ids": [str(id_) for id_ in ids if id_ not in excluded], "unknown": [str(id_) for id_ in unknown]}
    return await send_json(plane.limiter, call, 200, value, bytes_in=size)


def _envelope(delivery: Delivery, ack_wait_s: float) -> str:
    """Return the JSON envelope of an event with its ``delivery`` member."""
    member: dict[str, Any] = {
        "id": delivery.id,
        "attempt": delivery.attempt,
        "redelivered": delivery.attempt > 1,
        "ack_within_s": ack_wait_s,
    }
    if delivery.redriven_from:
        member["redriven_from"] = delivery.redriven_from
    return f'{delivery.event.frame()[:-1]},"delivery":{orjson.dumps(member).decode()}}}'


def _wait_s(text: str) -> float:
    wait_s = float(text) if len(text) <= WAIT_MAX_CHARS and _NUMBER.fullmatch(text) else -1.0
    if not 0 <= wait_s <= WAIT_MAX_S:
        raise Refused(Reason.INVALID_REQUEST, f"`wait_s` is a number from 0 to {WAIT_MAX_S:g}.")
    return wait_s
