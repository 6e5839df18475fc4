"""Positions, lag and attempts of subscriptions, queried from the event log by synchronous code."""

from __future__ import annotations

from typing import Any

from audit import bus
from events.models import Channel, Subscription
from events.subscriptions import channel_named_or_none
from gateway.durable.attempts import read_attempts
from gateway.durable.health import UNMEASURED, fields, measure, read_health, read_healths
from gateway.durable.readers import Readers
from gateway.durable.standing import Standing
from gateway.link.client import NatsClient
from gateway.log.event_log import EventLog
from gateway.log.position import parse_position
from gateway.refusals import Refused
from gateway.snapshot.documents import READERS
from gateway.snapshot.subscriptions import State, Type, read

_MEASURED = ("lag", "in_flight", "redelivered", "last_delivered_id", "last_acked_id", "last_error")


def position(channel: Channel, start: str | None) -> int:
    """Return the id after which a subscription starts; the default is `latest`.

    Raises Refused for an invalid position, and bus.Unavailable.
    """
    parsed = parse_position(start or "latest")
    if isinstance(parsed, int):
        return parsed
    document = READERS["channel"](channel.document())

    async def query(client: NatsClient) -> int:
        log = EventLog(client, client.jetstream())
        await log.start()
        try:
            return await log.last(document) if parsed is None else await log.sequence_at(document, parsed) - 1
        finally:
            await log.stop()

    return bus.query(query)


def healths() -> dict[str, dict[str, Any]]:
    """Return the last reported health of all subscriptions, by id; empty if NATS is unavailable."""
    try:
        return bus.query(read_healths)
    except bus.Unavailable:
        return {}


def health_now(row: Subscription) -> dict[str, Any]:
    """Return the health of one subscription: the last report, and its lag measured in the log now."""
    channel = channel_named_or_none(row.channel)

    async def query(client: NatsClient) -> dict[str, Any]:
        reported = await read_health(client, row.id)
        if channel is None:
            return reported
        log = EventLog(client, client.jetstream())
        await log.start()
        try:
            readers = Readers(client, client.jetstream())
            document = READERS["channel"](channel.document())
            return reported | await measure(log, readers, read(row.document()), document)
        except (LookupError, Refused):
            return reported
        finally:
            await log.stop()

    try:
        return bus.query(query)
    except bus.Unavailable:
        return {}


def attempts(subscription_id: str) -> list[dict[str, Any]]:
    """Return the stored attempts of a webhook, newest first. Raises bus.Unavailable."""
    return bus.query(lambda client: read_attempts(client, subscription_id))


def shown(row: Subscription, health: dict[str, Any]) -> dict[str, Any]:
    """Return the representation of a subscription in both APIs; unknown members of `lag` are null."""
    subscription = read(row.document())
    stands = Standing(State(subscription.state), subscription.state_reason)
    if stands.state is State.ACTIVE and health.get("state"):
        stands = Standing(State(health["state"]), health.get("state_reason") or "")
    known = fields(subscription, stands, is_pull=subscription.type == Type.PULL)
    return known | UNMEASURED | {"last_error": None} | {name: health[name] for name in _MEASURED if name in health}
