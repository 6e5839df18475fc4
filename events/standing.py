"""What only the event log knows of subscriptions, asked from synchronous code: where they begin, how they stand."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from audit import bus
from events.models import Channel, Subscription
from events.subscriptions import channel_named_or_none
from gateway.durable.attempts import read_attempts
from gateway.durable.health import UNMEASURED, fields, measure, read_health, read_healths
from gateway.durable.readers import Readers
from gateway.durable.standing import Standing
from gateway.log.event_log import EventLog
from gateway.log.position import parse_position
from gateway.refusals import Refused
from gateway.snapshot.documents import READERS
from gateway.snapshot.subscriptions import State, Type, read

_MEASURED = ("lag", "in_flight", "redelivered", "last_delivered_id", "last_acked_id", "last_error")


def position(channel: Channel, begins: str | None) -> int:
    """Give the id after which a subscription begins: at `latest` unless said. Raises Refused, and Away."""
    wanted = parse_position(begins or "latest")
    if isinstance(wanted, int):
        return wanted
    told = READERS["channel"](channel.document())

    async def ask(client: Client) -> int:
        log = EventLog(client, client.jetstream())
        await log.start()
        try:
            return await log.last(told) if wanted is None else await log.sequence_at(told, wanted) - 1
        finally:
            await log.stop()

    return bus.query(ask)


def healths() -> dict[str, dict[str, Any]]:
    """Give what deliverers last said of all subscriptions; nothing where NATS does not answer."""
    try:
        return bus.query(read_healths)
    except bus.Unavailable:
        return {}


def health_now(row: Subscription) -> dict[str, Any]:
    """Give how one subscription stands: what its deliverer last said, and how far it is by the log itself."""
    channel = channel_named_or_none(row.channel)

    async def ask(client: Client) -> dict[str, Any]:
        said = await read_health(client, row.id)
        if channel is None:
            return said
        log = EventLog(client, client.jetstream())
        await log.start()
        try:
            readers = Readers(client, client.jetstream())
            told = READERS["channel"](channel.document())
            return said | await measure(log, readers, read(row.document()), told)
        except (LookupError, Refused):
            return said
        finally:
            await log.stop()

    try:
        return bus.query(ask)
    except bus.Unavailable:
        return {}


def attempts(subscription_id: str) -> list[dict[str, Any]]:
    """Give the tries of a webhook that are kept, the newest first. Raises Away."""
    return bus.query(lambda client: read_attempts(client, subscription_id))


def shown(row: Subscription, health: dict[str, Any]) -> dict[str, Any]:
    """Say a subscription as both APIs do; members of `lag` are null where nobody has told them yet."""
    subscription = read(row.document())
    stands = Standing(State(subscription.state), subscription.state_reason)
    if stands.state is State.ACTIVE and health.get("state"):
        stands = Standing(State(health["state"]), health.get("state_reason") or "")
    said = fields(subscription, stands, is_pull=subscription.type == Type.PULL)
    return said | UNMEASURED | {"last_error": None} | {name: health[name] for name in _MEASURED if name in health}
