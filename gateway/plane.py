"""Everything that one data-plane process holds: made at its start, drained at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import orjson
import redis.asyncio as redis
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from redis.exceptions import RedisError

from gateway.authenticate import FailedKeys
from gateway.call import Call, Reply
from gateway.concurrency.turns import Turns
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.contracts.shelf import Shelf
from gateway.durable.held_back import HeldBack
from gateway.durable.readers import Readers
from gateway.handlers import channel, documents, job, me, pull, registry, subscription, ticket
from gateway.handlers.mqtt import connection as mqtt
from gateway.handlers.proxy import http as upstream
from gateway.handlers.proxy import websocket
from gateway.identity.jwks import KeySets
from gateway.limit import Limiter
from gateway.link.nats import CONTROL_SUBJECT, connect, ensure_infrastructure
from gateway.log.disk import Disk
from gateway.log.event_log import EventLog
from gateway.log.hub import Hub
from gateway.metering.usage import Usage
from gateway.policies.live import follow
from gateway.refusals import Reason, Refused
from gateway.snapshot.feed import SnapshotFeed
from gateway.snapshot.picture import Snapshot
from gateway.upstream.client import UpstreamClient
from gateway.wire.strict_json import Validators

logger = logging.getLogger(__name__)

Handler = Callable[["Plane", Call], Awaitable[Reply]]

HANDLERS: Mapping[str, Handler] = {
    "upstream": upstream.forward,
    "websocket": websocket.proxy,
    "stream": channel.stream,
    "events": channel.events,
    "publish": channel.publish_events,
    "history": channel.history,
    "job.submit": job.submit,
    "job.status": job.status,
    "job.cancel": job.cancel,
    "job.result": job.result,
    "job.events": job.events,
    "subscription.list": subscription.list_own,
    "subscription.create": subscription.create,
    "subscription.show": subscription.show,
    "subscription.change": subscription.change,
    "subscription.delete": subscription.delete,
    "subscription.rotate": subscription.rotate,
    "subscription.attempts": subscription.attempts,
    "subscription.pull": pull.pull,
    "subscription.ack": pull.ack,
    "subscription.nack": pull.nack,
    "subscription.extend": pull.extend,
    "registry": registry.serve,
    "ticket": ticket.issue,
    "me": me.show,
    "asyncapi": documents.asyncapi,
    "openapi": documents.openapi,
    "mqtt": mqtt.handle_mqtt,
}


class Plane:
    """One data-plane process's engines, picture of the control plane, limits, connections and usage."""

    handlers = HANDLERS
    redis_errors = RedisError

    def __init__(self, config: Config, client: Client, js: JetStreamContext) -> None:
        self.config = config
        self.nats = client
        self.js = js
        self.redis = redis.Redis.from_url(
            config.redis_url,
            socket_timeout=config.engine_timeout_s,
            socket_connect_timeout=config.engine_timeout_s,
            max_connections=32,
        )
        self.snapshot = Snapshot()
        self.failed_keys = FailedKeys(config.failed_keys_per_minute)
        self.limiter = Limiter(
            self.redis,
            owner=config.process,
            timeout_s=config.engine_timeout_s,
            has_legacy_fields=config.legacy_ratelimit_headers,
            is_open=partial(job.are_open, self),
        )
        self.shadows = self.limiter.usage
        self.connections = Connections(self.snapshot)
        follow(self)
        self.usage = Usage(config, self.connections, js, limits=self.limiter.usage_records)
        self.log = EventLog(client, js, Disk(config.events_dir, config.disk_free_min_bytes))
        self.hub = Hub(client, self.log, self.snapshot)
        self.readers = Readers(client, js)
        self.held_back = HeldBack(client, js)
        self.questions = Turns(each=1, in_all=64)
        """To the control plane, by consumer."""
        self.validators = Validators()
        self.shelf = Shelf(config, self.snapshot)
        self.upstreams = UpstreamClient(config)
        self.key_sets = KeySets(self.snapshot, self.upstreams, config)
        self.draining = False
        self._feed = SnapshotFeed(client, self.snapshot)

    @classmethod
    async def start(cls, config: Config) -> Plane:
        """Connect to the engines and load the snapshot. Raises when NATS cannot be reached."""
        client, js = await connect(config.nats_url, config.process)
        await ensure_infrastructure(js)
        plane = cls(config, client, js)
        await plane._feed.start()
        plane.key_sets.start()
        await plane.log.start()
        await plane.hub.start()
        await plane.limiter.start()
        await client.subscribe(f"{CONTROL_SUBJECT}.close", cb=plane._close_connection)
        plane.connections.start()
        plane.usage.start()
        return plane

    async def stop(self) -> None:
        """Drain: ask open connections to leave, give back what is leased, send the last usage, disconnect."""
        self.draining = True
        await self.connections.drain(self.config.drain_s)
        await self.connections.stop()
        await self._feed.stop()
        await self.limiter.stop()
        await self.usage.stop()
        await self.key_sets.stop()
        await self.upstreams.close()
        await self.hub.stop()
        await self.log.stop()
        await self.redis.aclose()
        try:
            async with asyncio.timeout(2):
                await self.nats.close()
        except (TimeoutError, OSError):
            logger.warning("nats did not take leave in time")

    async def _close_connection(self, message: Msg) -> None:
        """Close a connection at an operator's word; other processes hold the connections that this one lacks."""
        try:
            wanted = orjson.loads(message.data)["connection"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            logger.warning("control: a close message could not be read")
            return
        connection = self.connections.find(wanted)
        if connection is not None:
            connection.close(
                Refused(Reason.KEY_REVOKED, "An operator closed this connection.", cause="operator-closed")
            )
