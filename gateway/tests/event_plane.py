"""The parts of a Plane that events need, over a real NATS; and callers whose wires are queues."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from gateway.authenticate import Authenticator
from gateway.call import Call, Reply
from gateway.channels.publisher import Publisher
from gateway.channels.retained import RetainedEvents
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.credentials.api_keys import from_text, new_key
from gateway.durable.job_states import JobStates
from gateway.durable.mqtt_sessions import MqttSessions
from gateway.handle import Dispatcher
from gateway.handlers import channel as channel_handlers
from gateway.identity.jwks import KeySets
from gateway.identity.tickets import Tickets
from gateway.limiter import Limiter
from gateway.link.nats import connect, ensure_infrastructure
from gateway.log.event_log import EventLog
from gateway.log.hub import Hub
from gateway.log.streams import delete_stream, ensure_stream
from gateway.meter import Meter
from gateway.metering.usage import Usage
from gateway.peer import ClientGone
from gateway.pipeline import Pipeline
from gateway.protocol import Protocol
from gateway.schemas.checker import Validators
from gateway.side_thread import SideThreads
from gateway.snapshot.picture import Snapshot
from gateway.tests.policed import policies_for
from gateway.upstream.client import UpstreamClient
from gateway.wire.header_fields import Headers
from gateway.wire.subjects import Template, stored_prefix, stream_of

PEPPER = b"pepper of the tests"
WAIT_S = 20.0
QUIET_S = 0.2
"""How long to listen before saying that nothing came."""
ALL = ("publish:*", "subscribe:*")


def channel(address: str, **more: Any) -> dict[str, Any]:
    return {
        "address": address,
        "stream": stream_of(address),
        "subject": Template.parse(address).subject,
        "subject_prefix": stored_prefix(stream_of(address)),
        "title": "",
        "schema": None,
        "on_invalid": "reject",
        "retention": {},
        "protocols": [],
        **more,
    }


CHANNELS = [
    channel("trades"),
    channel("news"),
    channel("sensors/{id}/t", schema={"type": "number"}),
    channel("text", content_type="text"),
    channel("bytes", content_type="bytes"),
    channel("photos", content_type="image/jpeg"),
]


class EventPlane:
    """Has what handlers and connections of channels use of :class:`gateway.plane.Plane`."""

    def __init__(self, config: Config, documents: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        self.config = config
        self.key, self.other_key = new_key(PEPPER), new_key(PEPPER)
        self.snapshot = Snapshot.from_documents(
            {
                "tier": [{"name": "free", "limits": []}],
                "consumer": [{"name": name, "tier": "free"} for name in ("acme", "bolt")],
                "key": [self._key_document("acme", self.key), self._key_document("bolt", self.other_key)],
                **documents,
            }
        )
        self.redis = redis.Redis.from_url(config.redis_url)
        self.limiter = Limiter(self.redis, owner=config.process, is_open=self._are_open)
        self.connections = Connections(self.snapshot)
        self.upstreams = UpstreamClient(config)
        self.key_sets = KeySets(self.snapshot, self.upstreams, config)
        self.validators = Validators()
        self.side_threads = SideThreads()
        self.tickets = Tickets(self.redis, config, self.snapshot, self.key_sets)
        self.authenticator = Authenticator(config, self.snapshot, self.key_sets, self.tickets)
        self.draining = False
        self.handlers = {
            "stream": channel_handlers.stream,
            "events": channel_handlers.events,
            "publish": channel_handlers.publish_events,
            "history": channel_handlers.history,
        }

    @staticmethod
    def _key_document(consumer: str, key: Any) -> dict[str, Any]:
        return {"id": key.id, "consumer": consumer, "digest": key.digest, "scopes": list(ALL)}

    async def _are_open(self, job_ids: Sequence[str]) -> dict[str, bool | None]:
        return await self.jobs.are_open(job_ids)

    async def start(self) -> None:
        self.nats, self.js = await connect(self.config.nats_url, self.config.process)
        await ensure_infrastructure(self.js)
        self.log = EventLog(self.nats, self.js)
        self.hub = Hub(self.nats, self.log, self.snapshot)
        self.usage = Usage(self.config, self.connections, self.snapshot, self.js)
        self.jobs = JobStates(self.js)
        self.publisher = Publisher(
            self.config, self.snapshot, self.limiter, self.validators, self.log, self.side_threads
        )
        self.retained = RetainedEvents(self.nats, self.log, self.snapshot)
        self.mqtt_sessions = MqttSessions(self.nats, self.js, self.log)
        self.meter = Meter(self.connections, self.usage)
        self.policies = policies_for(self)
        self.policies.follow(self.connections)
        dispatcher = Dispatcher(self.policies, self.limiter, self._run_handler)
        self.pipeline = Pipeline(self.authenticator, self.limiter, dispatcher.handle, self.meter)
        await self.log.start()
        await self.hub.start()

    def _run_handler(self, call: Call) -> Awaitable[Reply]:
        return self.handlers[call.handler](self, call)

    async def stop(self) -> None:
        await self.hub.stop()
        await self.log.stop()
        await self.limiter.stop()
        await self.key_sets.stop()
        await self.upstreams.close()
        await self.redis.aclose()
        with contextlib.suppress(OSError):  # the link may be down, as some tests want it
            await self.nats.close()

    def change_key(self, **changes: Any) -> None:
        self.snapshot.apply([("key", self.key.id, {**self._key_document("acme", self.key), **changes})])

    def change_tier(self, limits: list[dict[str, Any]], **changes: Any) -> None:
        self.snapshot.apply([("tier", "free", {"name": "free", "limits": limits, **changes})])

    def call(self, protocol: Protocol = Protocol.HTTP, *, key: Any = None, peer: Any = None, **more: Any) -> Call:
        key = key or self.key
        return Call(
            protocol=protocol,
            address=more.pop("address", "/"),
            ip="127.0.0.1",
            credential=from_text(key.text),
            principal=self.snapshot.principal(key.id),
            peer=peer,
            **more,
        )


@asynccontextmanager
async def running(
    nats_url: str,
    folder: Path,
    channels: list[dict[str, Any]],
    *,
    routes: Iterable[Mapping[str, Any]] = (),
    redis_url: str = "redis://127.0.0.1:1",
    **settings: Any,
) -> AsyncIterator[EventPlane]:
    """Run the parts with these channels, whose logs are new and empty."""
    config = Config(
        process="test",
        kind="web",
        data_dir=folder,
        nats_url=nats_url,
        redis_url=redis_url,
        key_pepper=PEPPER,
        secret_key=b"secret",
        public_url="http://gateway.test",
        **settings,
    )
    plane = EventPlane(config, {"channel": channels, "route": routes})
    await plane.start()
    try:
        for document in channels:
            await delete_stream(plane.js, document["stream"])
            await ensure_stream(plane.js, document)
        yield plane
    finally:
        await plane.stop()


def messages_in(frames: bytes) -> Iterator[str]:
    """Yield the text messages of whole frames without a mask (RFC 6455 5.2)."""
    while frames:
        assert frames[0] == 0x81
        size, begins = frames[1], 2
        if size >= 126:
            begins = 4 if size == 126 else 10
            size = int.from_bytes(frames[2:begins])
        yield frames[begins : begins + size].decode()
        frames = frames[begins + size :]


class Wire:
    """A caller's end of a WebSocket: gateway.call.Socket to the gateway, frames to the test."""

    def __init__(self, subprotocols: tuple[str, ...] = ()) -> None:
        self.subprotocols = subprotocols
        self.subprotocol: str | None = None
        self.closed: tuple[int, str] | None = None
        self._to_gateway: asyncio.Queue[str | bytes | ClientGone] = asyncio.Queue()
        self._to_caller: asyncio.Queue[str] = asyncio.Queue()
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self.takes_frames = True
        self.is_compressing = False
        self.writes: list[bytes] = []

    # The gateway's side

    async def accept(
        self, subprotocol: str | None = None, headers: Headers | None = None, *, compress: bool = False
    ) -> None:
        self.subprotocol = subprotocol

    async def receive(self) -> str | bytes:
        message = await self._to_gateway.get()
        if isinstance(message, ClientGone):
            raise message
        return message

    async def send(self, message: str | bytes) -> None:
        await self.is_reading.wait()
        assert isinstance(message, str)
        self._to_caller.put_nowait(message)

    async def send_all(self, messages: Sequence[str]) -> None:
        for message in messages:
            await self.send(message)

    @property
    def can_write_now(self) -> bool:
        """Return whether the caller reads; a test may turn direct writing off."""
        return self.takes_frames and self.is_reading.is_set() and self.closed is None

    def write_now(self, data: bytes) -> None:
        self.writes.append(data)
        for text in messages_in(data):
            self._to_caller.put_nowait(text)

    async def close(self, code: int, reason: str = "") -> None:
        self.closed = (code, reason)

    # The caller's side

    def say(self, frame: Any) -> None:
        self._to_gateway.put_nowait(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def leave(self, code: int = 1000) -> None:
        self._to_gateway.put_nowait(ClientGone(code))

    async def heard(self, type_: str | None = None) -> dict[str, Any]:
        """Return the next frame, which must be of that type."""
        text = await asyncio.wait_for(self._to_caller.get(), WAIT_S)
        frame: dict[str, Any] = json.loads(text)
        assert type_ is None or frame["type"] == type_, frame
        return frame

    async def hears_nothing(self) -> bool:
        await asyncio.sleep(QUIET_S)
        return self._to_caller.empty()


class HttpExchange:
    """A caller's end of an HTTP or SSE call."""

    def __init__(self, body: bytes = b"") -> None:
        self._parts = [body] if body else []
        self.body_max_bytes = 10 * 1024 * 1024
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_ended = False
        self.expects_continue = False
        self.takes_parts = True
        self.writes: list[bytes] = []
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._watcher: Callable[[], None] | None = None

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    async def read_all(self) -> bytes:
        return b"".join(self._parts)

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def probe_with(self, part: bytes) -> None:
        pass

    @property
    def can_write_now(self) -> bool:
        """Return whether the stream has begun; a test may turn direct writing off."""
        return self.takes_parts and bool(self.body) and not self._gone.is_set()

    def write_now(self, data: bytes) -> None:
        self.writes.append(data)
        self.body += data
        self._sent.put_nowait(data)

    async def send(self, body: bytes, *, more: bool = True) -> None:
        if self._gone.is_set():
            raise ClientGone
        self.body += body
        self.is_ended = not more
        self._sent.put_nowait(body)

    async def gone(self) -> None:
        await self._gone.wait()

    def watch(self, gone: Callable[[], None] | None) -> None:
        self._watcher = gone

    def leave(self) -> None:
        self._gone.set()
        if self._watcher is not None:
            self._watcher()

    @property
    def parsed(self) -> Any:
        return json.loads(self.body)

    async def until(self, wanted: bytes) -> bytes:
        """Read until the text has come; give all that was sent so far."""
        async with asyncio.timeout(WAIT_S):
            while wanted not in self.body:
                await self._sent.get()
        return self.body
