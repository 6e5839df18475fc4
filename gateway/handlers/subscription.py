"""A consumer's own durable subscriptions: made, listed, changed, given another secret, deleted, and how they stand."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson
from nats.errors import Error as NatsError

from gateway.call import Call, Reply
from gateway.channels.reading import resolve, select
from gateway.concurrency.stopping import stop_tasks
from gateway.durable.attempts import read_attempts
from gateway.durable.health import describe, describe_unmeasured
from gateway.durable.standing import channel_of
from gateway.handlers.channel import idempotency_key
from gateway.identity.rights import require
from gateway.link.control_plane import request_control_plane
from gateway.link.nats import ATTEMPTS_KEPT
from gateway.log.position import parse_position
from gateway.log.unavailable import log_unavailable
from gateway.policies.json_body import require_plain
from gateway.refusals import Reason, Refused
from gateway.snapshot import subscriptions
from gateway.snapshot.right import Right, Verb
from gateway.snapshot.subscriptions import Subscription, Type, ack_wait_s, window
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

GIVEN = (
    "type", "channel", "url", "order", "max_in_flight", "max_attempts", "retry_schedule_s", "ack_wait_s",
    "alert_url", "alert_lag_events", "alert_lag_s",
)  # fmt: skip
"""What a consumer says of a new subscription, beside where it begins."""
KNOWN_WITHIN_S = 1.5
"""How long an answer waits until this process knows what was written."""
AT_ONCE = 8
TURN_WITHIN_S = 2.0
LISTED_WITHIN_S = 1.8
"""However many a list holds, a log that hangs costs its caller no more than this."""


async def create(plane: Plane, call: Call) -> Reply:
    """Serve ``POST /v1/subscriptions``: 201 with the secret, which is shown this once."""
    body, size = await read_object(call)
    begins = body.pop("from", None)
    _require_known(body, GIVEN)
    for name in ("type", "channel"):
        if not isinstance(body.get(name), str):
            raise Refused(Reason.INVALID_REQUEST, f"`{name}` is a text that is needed.")
    _require_a_key(call)
    position = await _position(plane, call, body["channel"], begins)
    said = await _ask(plane, call, "create", {"id": _new_id(call), "position": position, "fields": body})
    subscription = await _known(plane, said["document"])
    await _make_reader(plane, subscription)
    public = await _shown(plane, subscription)
    if "secret" in said:
        public["secret"] = said["secret"]
    headers = [(b"location", f"{plane.config.public_url}/v1/subscriptions/{subscription.id}".encode())]
    return await answer(plane, call, 201, public, headers, bytes_in=size)


async def list_own(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions``: the caller's own, the newest first."""
    wanted = query(call, {"channel", "state", "type"})
    own = [one for one in plane.snapshot.subscriptions() if one.consumer == call.caller.consumer]
    own.sort(key=lambda one: (-one.created_at, one.id))
    results = await _shown_within(plane, own, LISTED_WITHIN_S)
    found = [one for one in results if all(one[name] == value for name, value in wanted.items())]
    return await answer(plane, call, 200, {"results": found, "next": None})


async def show(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}``."""
    return await answer(plane, call, 200, await _shown(plane, own(plane, call)))


async def change(plane: Plane, call: Call) -> Reply:
    """Serve ``PATCH /v1/subscriptions/{id}``: from then on it delivers by the rights of the key that asks."""
    subscription = own(plane, call)
    changes, size = await read_object(call)
    _require_known(changes, (*GIVEN, "state"))
    _require_a_key(call)
    require(call.caller, subscription.right)
    said = await _ask(plane, call, "change", {"id": subscription.id, "changes": changes})
    changed = await _known(plane, said["document"])
    return await answer(plane, call, 200, await _shown(plane, changed), bytes_in=size)


async def rotate(plane: Plane, call: Call) -> Reply:
    """Serve ``POST /v1/subscriptions/{id}/rotate``: a new secret, and the one before is good for the overlap."""
    subscription = own(plane, call)
    options, size = await read_object(call)
    if set(options) - {"overlap_s"}:
        raise Refused(Reason.INVALID_REQUEST, "There is one field: `overlap_s`.")
    require(call.caller, subscription.right)
    said = await _ask(plane, call, "rotate", {"id": subscription.id, "options": options})
    rotated = await _known(plane, said["document"])
    public = {**await _shown(plane, rotated), "secret": said["secret"]}
    return await answer(plane, call, 201, public, bytes_in=size)


async def delete(plane: Plane, call: Call) -> Reply:
    """Serve ``DELETE /v1/subscriptions/{id}``."""
    subscription = own(plane, call)
    await _ask(plane, call, "delete", {"id": subscription.id})
    ends_at = time.monotonic() + KNOWN_WITHIN_S
    while plane.snapshot.subscription(subscription.id) is not None and time.monotonic() < ends_at:
        await asyncio.sleep(0.02)
    await call.peer.start(204, [(b"cache-control", b"no-store"), *plane.limiter.headers(call)])
    await call.peer.send(b"", more=False)
    return Reply(status=204)


async def attempts(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/subscriptions/{id}/attempts?event=&limit=``: what became of each try, the newest first."""
    subscription = own(plane, call)
    wanted = query(call, {"event", "limit"})
    limit = wanted.get("limit", str(ATTEMPTS_KEPT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and int(limit) > 0):
        raise Refused(Reason.INVALID_REQUEST, f"`limit` is a number from 1 to {ATTEMPTS_KEPT}.")
    try:
        found = await read_attempts(plane.nats, subscription.id)
    except (TimeoutError, OSError, NatsError) as error:
        raise log_unavailable() from error
    found = [one for one in found if wanted.get("event", one["event"]) == one["event"]]
    return await answer(plane, call, 200, {"results": found[: int(limit)], "next": None})


def own(plane: Plane, call: Call) -> Subscription:
    """Give the caller's own subscription; another consumer's is as unknown as one that never was. Raises Refused."""
    found = plane.snapshot.subscription(call.parameters["id"])
    if found is None or found.consumer != call.caller.consumer:
        raise Refused(Reason.NOT_FOUND, "There is no such subscription.")
    return found


def query(call: Call, known: set[str]) -> dict[str, str]:
    """Read the query string strictly. Raises Refused for what is not known or given twice."""
    try:
        pairs = parse_qsl(call.query.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise Refused(Reason.INVALID_REQUEST, "The query string cannot be read.") from None
    for name, _ in pairs:
        if name not in known:
            raise Refused(Reason.INVALID_REQUEST, f"Unknown query parameter {name[:40]!r}.")
    if len(dict(pairs)) != len(pairs):
        raise Refused(Reason.INVALID_REQUEST, "A query parameter is given twice.")
    return dict(pairs)


async def read_object(call: Call) -> tuple[dict[str, Any], int]:
    """Read the body: a JSON object, or none. Says how long it was, too. Raises Refused."""
    require_plain(call)
    parts = []
    while part := await call.peer.read():
        parts.append(part)
    body = b"".join(parts)
    value = parse(body) if body else {}
    if not isinstance(value, dict):
        raise Refused(Reason.INVALID_REQUEST, "The body is a JSON object.")
    return value, len(body)


async def answer(
    plane: Plane, call: Call, status: int, said: Mapping[str, Any], more: Headers | None = None, *, bytes_in: int = 0
) -> Reply:
    """Answer with a JSON object."""
    body = orjson.dumps(said)
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *(more or []),
        *plane.limiter.headers(call),
    ]
    await call.peer.start(status, headers)
    await call.peer.send(body, more=False)
    return Reply(status=status, bytes_in=bytes_in, bytes_out=len(body))


async def _ask(plane: Plane, call: Call, verb: str, question: dict[str, Any]) -> Any:
    """Ask the control plane, one question of a consumer at a time: a slow one holds up no other. Raises Refused."""
    asked = {"consumer": call.caller.consumer, "key": call.caller.key, **question}
    try:
        async with asyncio.timeout(TURN_WITHIN_S) as waiting, plane.questions.of(call.caller.consumer):
            waiting.reschedule(None)
            return await request_control_plane(plane.nats, f"subscriptions.{verb}", asked)
    except TimeoutError:
        raise Refused(Reason.OVERLOADED, "Another change of yours is under way.", retry_after_s=1) from None


def _require_known(body: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in body:
        if name not in names:
            raise Refused(Reason.INVALID_REQUEST, f"Unknown field {name[:40]!r}; there are {', '.join(names)}.")


def _require_a_key(call: Call) -> None:
    """Raise Refused for a caller without a key: what outlives the call needs rights that do."""
    if call.caller.token is not None:
        raise Refused(Reason.FORBIDDEN, "A subscription outlives a token: use an API key.", cause="token-for-durable")


def _new_id(call: Call) -> str:
    """Give a random id, or with an ``Idempotency-Key`` always the same one for this consumer and key."""
    key = idempotency_key(call)
    if key is None:
        return subscriptions.ID_PREFIX + secrets.token_hex(12)
    named = "\0".join((call.caller.consumer, "subscription", key))
    return subscriptions.ID_PREFIX + hashlib.sha256(named.encode()).hexdigest()[:24]


async def _position(plane: Plane, call: Call, address: str, begins: Any) -> int:
    """Give the id after which it begins. Raises Refused, also where the key may not read the channel."""
    require(call.caller, Right(Verb.SUBSCRIBE, address))
    selection = select(plane.snapshot, call, address)
    if begins is not None and not isinstance(begins, str):
        raise Refused(Reason.INVALID_REQUEST, "`from` is a text: `earliest`, `latest`, an id or an instant.")
    position = await resolve(plane.log, selection.channel, parse_position(begins or "latest"))
    return position if position is not None else await plane.log.last(selection.channel)


async def _known(plane: Plane, document: Mapping[str, Any]) -> Subscription:
    """Wait until this process has heard of what was written, so that who asks next finds it."""
    wanted = subscriptions.read(document)
    ends_at = time.monotonic() + KNOWN_WITHIN_S
    while time.monotonic() < ends_at:
        known = plane.snapshot.subscription(wanted.id)
        if known is not None and known.version >= wanted.version:
            return known
        await asyncio.sleep(0.02)
    return wanted


async def _make_reader(plane: Plane, subscription: Subscription) -> None:
    """Make its reader now, so that lag is known from the start; whoever reads first makes it otherwise."""
    channel = channel_of(plane.snapshot, subscription)
    if channel is None:
        return
    wait_s = ack_wait_s(subscription, plane.config.webhook_timeout_s)
    try:
        await plane.readers.ensure(subscription, channel, wait_s, window(subscription))
    except Refused:
        logger.warning("the reader of subscription %s is not made yet", subscription.id)


async def _shown(plane: Plane, subscription: Subscription) -> dict[str, Any]:
    return await describe(plane, subscription, is_pull=subscription.type == Type.PULL)


async def _shown_within(plane: Plane, several: list[Subscription], seconds: float) -> list[dict[str, Any]]:
    """Say all of several; of those that the log does not tell of in time, what is known here."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def say(one: Subscription) -> dict[str, Any]:
        async with turn:
            return await _shown(plane, one)

    saying = [asyncio.create_task(say(one)) for one in several]
    try:
        if saying:
            await asyncio.wait(saying, timeout=seconds)
        return [
            task.result() if task.done() else describe_unmeasured(plane, one, is_pull=one.type == Type.PULL)
            for one, task in zip(several, saying, strict=True)
        ]
    finally:
        await stop_tasks(*saying)
