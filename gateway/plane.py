"""Everything that one data-plane process holds: made at its start, drained at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import orjson
import redis.asyncio as redis
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from gateway.authenticate import Authenticator
from gateway.call import Call, Reply
from gateway.channels.publisher import Publisher
from gateway.channels.retained import RetainedEvents
from gateway.concurrency.turns import Turns
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.contracts.document_cache import DocumentCache
from gateway.durable.first_responses import FirstResponses
from gateway.durable.job_states import JobStates
from gateway.durable.mqtt_sessions import MqttSessions
from gateway.durable.readers import Readers
from gateway.durable.withheld import Withheld
from gateway.handle import Dispatcher
from gateway.hooks.functions import HookFunctions
from gateway.identity.jwks import KeySets
from gateway.identity.tickets import Tickets
from gateway.limiter import Limiter
from gateway.limits.held_bodies import HeldBodies
from gateway.limits.refused_calls import RefusedCalls
from gateway.link.client import NatsClient
from gateway.link.metrics import Reporter
from gateway.link.nats import CONTROL_SUBJECT, connect, ensure_infrastructure
from gateway.link.take_overs import TakeOvers
from gateway.log.disk import Disk
from gateway.log.event_log import EventLog
from gateway.log.hub import Hub
from gateway.meter import Meter
from gateway.metering.usage import Usage
from gateway.pipeline import Pipeline
from gateway.policies import Dependencies, Policies
from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Validators
from gateway.side_thread import SideThreads
from gateway.snapshot.feed import SnapshotFeed
from gateway.snapshot.picture import Snapshot
from gateway.upstream.client import UpstreamClient

logger = logging.getLogger(__name__)

Handler = Callable[["Plane", Call], Awaitable[Reply]]


class Plane:
    """One data-plane process's engines, picture of the control plane, limits, connections and usage."""

    def __init__(
        self, config: Config, client: NatsClient, js: JetStreamContext, handlers: Mapping[str, Handler]
    ) -> None:
        self.config = config
        self.handlers = handlers
        self.nats = client
        self.js = js
        self.redis = redis.Redis.from_url(
            config.redis_url,
            socket_timeout=config.engine_timeout_s,
            socket_connect_timeout=config.engine_timeout_s,
            max_connections=32,
        )
        self.snapshot = Snapshot()
        self.jobs = JobStates(js)
        self.first_responses = FirstResponses(js)
        self.limiter = Limiter(
            self.redis,
            owner=config.process,
            timeout_s=config.engine_timeout_s,
            has_legacy_fields=config.legacy_ratelimit_headers,
            is_open=self.jobs.are_open,
            held_bodies=HeldBodies(config.held_bodies_max_bytes, config.held_bodies_process_max_bytes),
        )
        self.connections = Connections(self.snapshot)
        self.usage = Usage(
            config,
            self.connections,
            self.snapshot,
            js,
            limits=self.limiter.usage_records,
            max_payload=lambda: client.max_payload,
        )
        self.reporter = Reporter(client, config.process, self.usage.metrics.registry)
        self.log = EventLog(client, js, Disk(config.events_dir, config.disk_free_min_bytes))
        self.hub = Hub(client, self.log, self.snapshot)
        self.readers = Readers(client, js, self.log)
        self.withheld = Withheld(client, js)
        self.questions = Turns(each=1, in_all=64)
        """To the control plane, by consumer."""
        self.validators = Validators()
        self.document_cache = DocumentCache(config, self.snapshot, self.jobs.input_schemas)
        self.upstreams = UpstreamClient(config)
        self.key_sets = KeySets(self.snapshot, self.upstreams, config)
        self.take_overs = TakeOvers(client)
        self.tickets = Tickets(self.redis, config, self.snapshot, self.key_sets)
        self.authenticator = Authenticator(config, self.snapshot, self.key_sets, self.tickets)
        self.side_threads = SideThreads()
        self.publisher = Publisher(config, self.snapshot, self.limiter, self.validators, self.log, self.side_threads)
        self.policies = Policies(
            Dependencies(
                config=config,
                snapshot=self.snapshot,
                limiter=self.limiter,
                tallies=self.limiter.usage,
                hooks=HookFunctions(timeout_s=config.hook_timeout_s, threads_each=config.hook_threads),
                log=self.log,
                publisher=self.publisher,
                side_threads=self.side_threads,
            )
        )
        self.policies.follow(self.connections)
        self.retained = RetainedEvents(client, self.log, self.snapshot)
        self.mqtt_sessions = MqttSessions(client, js, self.log)
        self.meter = Meter(self.connections, self.usage)
        dispatcher = Dispatcher(self.policies, self.limiter, self._run_handler)
        self.pipeline = Pipeline(
            self.authenticator, self.limiter, dispatcher.handle, self.meter, RefusedCalls(config.refused_per_minute)
        )
        self.draining = False
        self._feed = SnapshotFeed(client, self.snapshot)

    @classmethod
    async def start(cls, config: Config, handlers: Mapping[str, Handler]) -> Plane:
        """Connect to the engines and load the snapshot. Raises when NATS cannot be reached."""
        client, js = await connect(config.nats_url, config.process)
        await ensure_infrastructure(js)
        plane = cls(config, client, js, handlers)
        await plane._feed.start()
        plane.key_sets.start()
        await plane.log.start()
        await plane.hub.start()
        await plane.limiter.start()
        await client.subscribe(f"{CONTROL_SUBJECT}.close", cb=plane._close_connection)
        await plane.tickets.holds.start(plane.take_overs)
        plane.connections.start()
        plane.usage.start()
        await plane.reporter.start()
        return plane

    async def stop(self) -> None:
        """Drain: ask open connections to leave, give back what is leased, send the last usage, disconnect."""
        self.draining = True
        await self.connections.drain(self.config.drain_s)
        await self.first_responses.stop(self.config.close_timeout_s)
        await self.connections.stop()
        await self._feed.stop()
        await self.limiter.stop()
        await self.take_overs.stop()
        await self.tickets.holds.stop()
        await self.usage.stop()
        await self.reporter.stop()
        await self.key_sets.stop()
        await self.upstreams.close()
        await self.hub.stop()
        await self.log.stop()
        self.side_threads.stop()
        await self.redis.aclose()
        try:
            async with asyncio.timeout(2):
                await self.nats.close()
        except (TimeoutError, OSError):
            logger.warning("nats did not take leave in time")

    def _run_handler(self, call: Call) -> Awaitable[Reply]:
        return self.handlers[call.handler](self, call)

    async def _close_connection(self, message: Msg) -> None:
        """Close a connection as an operator requests; a process without that connection ignores the request."""
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
