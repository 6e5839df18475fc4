"""Events pulled from a durable subscription: given out, settled, given again, given up."""

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
from gateway.durable.standing import channel_of, standing
from gateway.durable.withheld import COUNTS_MAX
from gateway.handlers.channel import let_out
from gateway.handlers.subscription import answer, own, query, read_object
from gateway.identity.rights import require
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Metric
from gateway.snapshot.subscriptions import Subscription, Type, ack_wait_s, window

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot.picture import Channel

LIMIT_DEFAULT = 100
WAIT_MAX_S = 30.0
LOOK_S = 2.0
"""While a caller waits, its rights and the end of this process are looked at so often."""
IDS_MAX = 1000
PUT_OFF_MAX_S = 12 * 3600
_ID = re.compile(r"([0-9]{1,19})(?:\.[0-9]{1,19}\.[0-9]{1,10})?")


async def pull(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}/events?limit=&wait_s=``: what is there, or what comes first."""
    asked = query(call, {"limit", "wait_s"})
    limit = int(_number(asked, "limit", LIMIT_DEFAULT, 1, BATCH_MAX))
    ends_at = time.monotonic() + _number(asked, "wait_s", 0, 0, WAIT_MAX_S)
    gone = asyncio.ensure_future(call.peer.gone())
    try:
        while True:
            subscription, channel = _readable(plane, call)
            most = min(limit, await _left(plane, call))
            fetched = await _fetch(plane, subscription, channel, most, min(max(ends_at - time.monotonic(), 0), LOOK_S))
            found = await _without_poison(plane, subscription, channel, fetched)
            is_over = time.monotonic() >= ends_at or plane.draining
            if found or (is_over and not fetched):
                break
            if gone.done():
                raise ClientGone
        given = await _let_out(plane, call, subscription, channel, found)
    finally:
        await stop_tasks(gone)
    results = ",".join(_said(one, subscription.ack_wait_s) for one in given)
    return await _send(plane, call, f'{{"results":[{results}]}}'.encode(), len(given))


async def ack(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/ack`` ``{"ids": […]}``: these are done with; ``seconds`` would say nothing."""
    subscription, channel = _readable(plane, call)
    ids, _, size = await _read_ids(call)
    not_out = await plane.readers.ack_ids(subscription, channel, ids)
    return await _settled(plane, call, ids, not_out, size)


async def nack(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/nack`` ``{"ids": […], "seconds": 0}``: these are to be given again, after so long."""
    subscription, channel = _readable(plane, call)
    ids, seconds, size = await _read_ids(call)
    not_out = await plane.readers.nak_ids(subscription, channel, ids, seconds or 0)
    return await _settled(plane, call, ids, not_out, size)


async def extend(plane: Plane, call: Call) -> Reply:
    """Serve ``POST …/extend`` ``{"ids": […], "seconds": 60}``: these are not given again before so long has passed."""
    subscription, channel = _readable(plane, call)
    ids, seconds, size = await _read_ids(call)
    seconds = subscription.ack_wait_s if seconds is None else seconds
    not_out = await plane.readers.nak_ids(subscription, channel, ids, max(seconds, 0.001))
    return await _settled(plane, call, ids, not_out, size)


def _readable(plane: Plane, call: Call) -> tuple[Subscription, Channel]:
    """Give the caller's own pull subscription and its channel, where it may read them now. Raises Refused."""
    subscription = own(plane, call)
    if subscription.type != Type.PULL:
        raise Refused(Reason.INVALID_REQUEST, "The events of this subscription are sent to its URL.")
    recheck(plane.snapshot, call)
    if call.caller.expires_at is not None and call.caller.expires_at <= time.time():
        raise Refused(Reason.TOKEN_EXPIRED)
    require(call.caller, subscription.right)
    stands = standing(plane.snapshot, subscription, time.time())
    if not stands.may_deliver:
        raise Refused(
            Reason.FORBIDDEN, f"The subscription is {stands.state.value}: {stands.reason}.", cause="subscription-paused"
        )
    channel = channel_of(plane.snapshot, subscription)
    assert channel is not None, "part of its standing"
    return subscription, channel


async def _fetch(
    plane: Plane, subscription: Subscription, channel: Channel, limit: int, wait_s: float
) -> list[Delivery]:
    wait_for_ack_s = ack_wait_s(subscription, plane.config.webhook_timeout_s)
    await plane.readers.ensure(subscription, channel, wait_for_ack_s, window(subscription))
    try:
        found = await plane.readers.fetch(subscription, channel, limit, wait_s)
    except LookupError:
        await plane.readers.ensure(subscription, channel, wait_for_ack_s, window(subscription))
        found = await plane.readers.fetch(subscription, channel, limit, wait_s)
    return await plane.withheld.discount(subscription.id, found)


async def _without_poison(
    plane: Plane, subscription: Subscription, channel: Channel, found: list[Delivery]
) -> list[Delivery]:
    """Leave out what was given in vain too often: it becomes a dead letter, and those behind it go on."""
    good = []
    for one in found:
        tries = one.attempt - 1
        if tries < subscription.max_attempts and is_writable(one.event):
            good.append(one)
            continue
        why = f"Given {tries} times and never acknowledged." if is_writable(one.event) else UNWRITABLE
        await store_dead_letter(plane.log, channel, subscription, one, max(tries, 1), why)
        await plane.readers.ack(one)
    return good


async def _left(plane: Plane, call: Call) -> int:
    """Say how many messages the limits let out now; at least one, so that who asks for more hears why not."""
    if not call.caller.limits:
        return BATCH_MAX
    await plane.limiter.look(call.caller, call)
    left = [
        fact["remaining"]
        for fact in plane.limiter.left(call.caller, call)
        if fact["metric"] == Metric.MESSAGES_OUT.value
        and (fact["mode"], fact["exceed"]) == ("enforce", "reject")
        and fact["remaining"] is not None
    ]
    return max(1, int(min(left, default=BATCH_MAX)))


async def _let_out(
    plane: Plane, call: Call, subscription: Subscription, channel: Channel, found: list[Delivery]
) -> list[Delivery]:
    """Charge them as ``messages_out``; what the limits do not let out now is given another time. Raises Refused."""
    if not found:
        return found
    count = 0
    try:
        _readable(plane, call)  # while it waited, its caller may have lost what let it in
        count = len(await let_out(plane, call, [one.event for one in found]))
    finally:
        if held_back := found[count:]:
            await _hold_back(plane, subscription, channel, held_back)
    return found[:count]


async def _hold_back(plane: Plane, subscription: Subscription, channel: Channel, events: list[Delivery]) -> None:
    """Have them given again at once, without a try of theirs used up."""
    if await plane.withheld.add(subscription.id, events) > COUNTS_MAX:
        progress = await plane.readers.progress(subscription, channel)
        await plane.withheld.forget(subscription.id, progress.acked_id)
    for one in events:
        await plane.readers.nak(one, 0)


async def _read_ids(call: Call) -> tuple[list[int], float | None, int]:
    """Read ids of events or of deliveries, and seconds. Raises Refused."""
    body, size = await read_object(call)
    if set(body) - {"ids", "seconds"}:
        raise Refused(Reason.INVALID_REQUEST, "There are `ids` and `seconds`.")
    ids, seconds = body.get("ids"), body.get("seconds")
    if not isinstance(ids, list) or not 1 <= len(ids) <= IDS_MAX:
        raise Refused(Reason.INVALID_REQUEST, f"`ids` is a list of 1 to {IDS_MAX} ids.")
    found = [_ID.fullmatch(one) if isinstance(one, str) else None for one in ids]
    sequences = [int(match[1]) for match in found if match is not None]
    if len(sequences) != len(ids):
        raise Refused(Reason.INVALID_REQUEST, "An id is the text `id` of an event, or the one of its `delivery`.")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds <= PUT_OFF_MAX_S):
        raise Refused(Reason.INVALID_REQUEST, f"`seconds` is a number from 0 to {PUT_OFF_MAX_S}.")
    return sequences, seconds, size


async def _settled(plane: Plane, call: Call, ids: list[int], not_out: list[int], size: int) -> Reply:
    """Say which ids were taken, and which are none that is out: settled before, given again since, or never given."""
    unknown = set(not_out)
    said = {"ids": [str(id_) for id_ in ids if id_ not in unknown], "unknown": [str(id_) for id_ in not_out]}
    return await answer(plane, call, 200, said, bytes_in=size)


def _said(given: Delivery, ack_wait_s: float) -> str:
    """Say an event with its delivery, as the envelope has it."""
    delivery: dict[str, Any] = {
        "id": given.id,
        "attempt": given.attempt,
        "redelivered": given.attempt > 1,
        "ack_within_s": ack_wait_s,
    }
    if given.redriven_from:
        delivery["redriven_from"] = given.redriven_from
    return f'{given.event.frame()[:-1]},"delivery":{orjson.dumps(delivery).decode()}}}'


def _number(asked: dict[str, str], name: str, default: float, least: float, most: float) -> float:
    text = asked.get(name, "")
    if not text:
        return default
    try:
        value = float(text) if len(text) <= 10 else -1.0
    except ValueError:
        value = -1.0
    if not least <= value:
        raise Refused(Reason.INVALID_REQUEST, f"`{name}` is a number from {least:g} to {most:g}.")
    return min(value, most)


async def _send(plane: Plane, call: Call, body: bytes, messages: int) -> Reply:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *plane.limiter.headers(call),
    ]
    await call.peer.start(200, headers)
    await call.peer.send(body, more=False)
    return Reply(status=200, messages_out=messages, bytes_out=len(body))
