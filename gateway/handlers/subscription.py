"""Durable subscriptions of a consumer: create, list, show, change, rotate the secret, delete, and list attempts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError

from gateway.call import Call, Reply
from gateway.channels.reading import resolve, select
from gateway.concurrency.stopping import stop_tasks
from gateway.durable.attempts import read_attempts
from gateway.durable.health import describe, describe_unmeasured
from gateway.durable.standing import channel_of
from gateway.handlers.requests import idempotency_key, query_values, read_object, require_no_query, whole_number
from gateway.handlers.responses import send_empty, send_json
from gateway.identity.rights import may_use, require
from gateway.link.control_plane import request_control_plane
from gateway.link.nats import ATTEMPTS_KEPT
from gateway.log.position import parse_position
from gateway.log.unavailable import log_unavailable
from gateway.refusals import Reason, Refused
from gateway.snapshot import subscriptions
from gateway.snapshot.right import Right, Verb
from gateway.snapshot.subscriptions import State, Subscription, Type, ack_wait_s

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

FIELDS = (
    "type", "channel", "url", "order", "max_in_flight", "max_attempts", "retry_schedule_s", "ack_wait_s",
    "alert_url", "alert_lag_events", "alert_lag_s",
)  # fmt: skip
"""The fields of a new subscription, apart from its start position."""
APPLIED_WITHIN_S = 1.5
"""How long a response waits until the snapshot of this process has the change."""
APPLIED_CHECK_S = 0.02
DESCRIBED_AT_ONCE = 8
TURN_WITHIN_S = 2.0
LIST_TIMEOUT_S = 1.8
"""How long a list waits for a slow log, however many subscriptions it has."""


async def create(plane: Plane, call: Call) -> Reply:
    """Serve ``POST /v1/subscriptions``: 201 with the secret, which is shown only this once."""
    require_no_query(call)
    body, size = await read_object(call)
    start = body.pop("from", None)
    _require_known(body, FIELDS)
    for name in ("type", "channel"):
        if not isinstance(body.get(name), str):
            raise Refused(Reason.INVALID_REQUEST, f"`{name}` is required, and must be a string.")
    _require_a_key(call)
    position = await _position(plane, call, body["channel"], start)
    id_ = _new_id(call, body["channel"])
    answer = await _request(plane, call, "create", {"id": id_, "position": position, "fields": body})
    subscription = await _applied(plane, answer["document"])
    await _ensure_reader(plane, subscription)
    description = await _describe(plane, subscription)
    if "secret" in answer:
        description["secret"] = answer["secret"]
    headers = [(b"location", f"{plane.config.public_url}/v1/subscriptions/{subscription.id}".encode())]
    return await send_json(plane.limiter, call, 201, description, headers=headers, bytes_in=size)


async def list_own(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions``: those that the caller may use, the newest first."""
    query = query_values(call, {"channel", "state", "type"})
    for name, kind in (("state", State), ("type", Type)):
        if query.get(name, next(iter(kind)).value) not in list(kind):
            raise Refused(Reason.INVALID_REQUEST, f"`{name}` is one of {', '.join(kind)}.")
    own = [one for one in plane.snapshot.subscriptions() if _may_use(call, one)]
    own.sort(key=lambda one: (-one.created_at, one.id))
    descriptions = await _describe_within(plane, own, LIST_TIMEOUT_S)
    results = [one for one in descriptions if all(one[name] == value for name, value in query.items())]
    return await send_json(plane.limiter, call, 200, {"results": results, "next": None})


async def show(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}``."""
    require_no_query(call)
    return await send_json(plane.limiter, call, 200, await _describe(plane, own(plane, call)))


async def change(plane: Plane, call: Call) -> Reply:
    """Serve ``PATCH /v1/subscriptions/{id}``: from then on it delivers with the rights of the caller's key."""
    require_no_query(call)
    subscription = own(plane, call)
    changes, size = await read_object(call)
    _require_known(changes, (*FIELDS, "state"))
    _require_a_key(call)
    require(call.caller, subscription.right)
    answer = await _request(plane, call, "change", {"id": subscription.id, "changes": changes})
    changed = await _applied(plane, answer["document"])
    return await send_json(plane.limiter, call, 200, await _describe(plane, changed), bytes_in=size)


async def rotate(plane: Plane, call: Call) -> Reply:
    """Serve ``POST /v1/subscriptions/{id}/rotate``: a new secret; the previous one stays valid for the overlap."""
    require_no_query(call)
    subscription = own(plane, call)
    options, size = await read_object(call)
    if set(options) - {"overlap_s"}:
        raise Refused(Reason.INVALID_REQUEST, "The only field is `overlap_s`.")
    require(call.caller, subscription.right)
    answer = await _request(plane, call, "rotate", {"id": subscription.id, "options": options})
    rotated = await _applied(plane, answer["document"])
    description = {**await _describe(plane, rotated), "secret": answer["secret"]}
    return await send_json(plane.limiter, call, 201, description, bytes_in=size)


async def delete(plane: Plane, call: Call) -> Reply:
    """Serve ``DELETE /v1/subscriptions/{id}``."""
    require_no_query(call)
    subscription = own(plane, call)
    await _request(plane, call, "delete", {"id": subscription.id})
    ends_at = time.monotonic() + APPLIED_WITHIN_S
    while plane.snapshot.subscription(subscription.id) is not None and time.monotonic() < ends_at:
        await asyncio.sleep(APPLIED_CHECK_S)
    return await send_empty(plane.limiter, call, 204)


async def attempts(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}/attempts?event=&limit=``: the delivery attempts, newest first."""
    subscription = own(plane, call)
    query = query_values(call, {"event", "limit"})
    limit = whole_number("limit", query.get("limit", str(ATTEMPTS_KEPT)), ATTEMPTS_KEPT)
    try:
        results = await read_attempts(plane.nats, subscription.id)
    except (TimeoutError, OSError, NatsError) as error:
        raise log_unavailable() from error
    results = [one for one in results if query.get("event", one["event"]) == one["event"]]
    return await send_json(plane.limiter, call, 200, {"results": results[:limit], "next": None})


def own(plane: Plane, call: Call) -> Subscription:
    """Return a subscription that the caller may use: its key delivers, or it has the right to the channel.

    Raises Refused ``not-found`` for any other, so that it cannot be distinguished from one that does not exist.
    """
    subscription = plane.snapshot.subscription(call.parameters["id"])
    if subscription is None or not _may_use(call, subscription):
        raise Refused(Reason.NOT_FOUND, "There is no such subscription.")
    return subscription


def _may_use(call: Call, subscription: Subscription) -> bool:
    is_own = subscription.consumer == call.caller.consumer
    return is_own and may_use(call.caller, subscription.right, subscription.key)


async def _request(plane: Plane, call: Call, verb: str, arguments: dict[str, Any]) -> Any:
    """Send a request to the control plane, one at a time for each consumer. Raises Refused."""
    request = {"consumer": call.caller.consumer, "key": call.caller.key, **arguments}
    try:
        async with asyncio.timeout(TURN_WITHIN_S) as waiting, plane.questions.acquire(call.caller.consumer):
            waiting.reschedule(None)
            return await request_control_plane(plane.nats, f"subscriptions.{verb}", request)
    except TimeoutError:
        raise Refused(Reason.OVERLOADED, "Another change of a subscription is in progress.", retry_after_s=1) from None


def _require_known(body: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in body:
        if name not in names:
            raise Refused(Reason.INVALID_REQUEST, f"Unknown field {name[:40]!r}; the fields are {', '.join(names)}.")


def _require_a_key(call: Call) -> None:
    """Raise Refused for a caller with a token: a subscription outlives the rights that a token proves."""
    if call.caller.token is not None:
        raise Refused(Reason.FORBIDDEN, "A subscription outlives a token: use an API key.", cause="token-for-durable")


def _new_id(call: Call, channel: str) -> str:
    """Return a random id, or the one that belongs to this consumer, channel and idempotency key.

    The channel is a part of it, as the answer to a repeated request contains the secret of the subscription.
    """
    key = idempotency_key(call)
    if key is None:
        return subscriptions.ID_PREFIX + secrets.token_hex(12)
    scope = "\0".join((call.caller.consumer, "subscription", channel, key))
    return subscriptions.ID_PREFIX + hashlib.sha256(scope.encode()).hexdigest()[:24]


async def _position(plane: Plane, call: Call, address: str, start: Any) -> int:
    """Return the id after which it starts. Raises Refused, also where the key may not read the channel."""
    require(call.caller, Right(Verb.SUBSCRIBE, address))
    selection = select(plane.snapshot, call, address)
    if start is not None and not isinstance(start, str):
        raise Refused(Reason.INVALID_REQUEST, "`from` must be a string: `earliest`, `latest`, an id or a timestamp.")
    position = await resolve(plane.log, selection.channel, parse_position(start or "latest"))
    return position if position is not None else await plane.log.last(selection.channel)


async def _applied(plane: Plane, document: Mapping[str, Any]) -> Subscription:
    """Wait until the snapshot of this process has the change, so that the caller's next request sees it."""
    written = subscriptions.read(document)
    ends_at = time.monotonic() + APPLIED_WITHIN_S
    while time.monotonic() < ends_at:
        current = plane.snapshot.subscription(written.id)
        if current is not None and current.version >= written.version:
            return current
        await asyncio.sleep(APPLIED_CHECK_S)
    return written


async def _ensure_reader(plane: Plane, subscription: Subscription) -> None:
    """Create the reader, so that the lag is known from the start. On failure, the first fetch creates it."""
    channel = channel_of(plane.snapshot, subscription)
    if channel is None:
        return
    wait_s = ack_wait_s(subscription, plane.config.webhook_timeout_s)
    try:
        await plane.readers.ensure(subscription, channel, wait_s)
    except Refused:
        logger.warning("the reader of subscription %s could not be created yet", subscription.id)


async def _describe(plane: Plane, subscription: Subscription) -> dict[str, Any]:
    return await describe(plane, subscription, is_pull=subscription.type == Type.PULL)


async def _describe_within(plane: Plane, several: list[Subscription], timeout_s: float) -> list[dict[str, Any]]:
    """Return the descriptions in order; where the log does not answer in time, those without measurements."""
    turn = asyncio.Semaphore(DESCRIBED_AT_ONCE)

    async def describe_one(subscription: Subscription) -> dict[str, Any]:
        async with turn:
            return await _describe(plane, subscription)

    tasks = [asyncio.create_task(describe_one(one)) for one in several]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return [
            task.result() if task.done() else describe_unmeasured(plane, one, is_pull=one.type == Type.PULL)
            for one, task in zip(several, tasks, strict=True)
        ]
    finally:
        await stop_tasks(*tasks)
