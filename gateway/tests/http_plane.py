"""A data plane behind our HTTP server, upstreams that do as they are told, and callers that speak in bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from gateway.authenticate import Authenticator
from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.credentials.api_keys import new_key
from gateway.handle import Dispatcher
from gateway.handlers import me, placeholder
from gateway.handlers.proxy import http as upstream
from gateway.handlers.proxy import websocket
from gateway.identity.jwks import KeySets
from gateway.identity.tickets import Tickets
from gateway.limiter import Limiter
from gateway.limits.held_bodies import HeldBodies
from gateway.limits.refused_calls import RefusedCalls
from gateway.listening.capacity import Capacity
from gateway.meter import Meter
from gateway.metering.usage import Usage
from gateway.pipeline import Pipeline
from gateway.refusals import Refused
from gateway.server.server import Server
from gateway.side_thread import SideThreads
from gateway.snapshot.picture import Snapshot
from gateway.tests import driving
from gateway.tests.driving import Driver
from gateway.tests.policed import policies_for
from gateway.tests.servers import served
from gateway.upstream.client import UpstreamClient

PEPPER = b"pepper of the tests"
WAIT_S = 20.0
NOWHERE = 1
"""A port on which nobody listens."""


class HttpPlane:
    """Has what requests and proxied sockets use of :class:`gateway.plane.Plane`."""

    handlers: Mapping[str, Any] = {
        "upstream": upstream.forward,
        "websocket": websocket.proxy,
        "placeholder": placeholder.refuse,
        "me": me.show,
    }

    def __init__(
        self, config: Config, routes: Iterable[Mapping[str, Any]], limits: list[dict[str, Any]], scopes: list[str]
    ) -> None:
        self.config = config
        self.key, self.other_key = new_key(PEPPER), new_key(PEPPER)
        keys = [
            {"id": key.id, "consumer": name, "digest": key.digest, "scopes": scopes}
            for name, key in (("acme", self.key), ("bolt", self.other_key))
        ]
        self.snapshot = Snapshot.from_documents(
            {
                "tier": [{"name": "free", "limits": limits}],
                "consumer": [{"name": name, "tier": "free"} for name in ("acme", "bolt")],
                "key": keys,
                "route": routes,
            }
        )
        self.redis = redis.Redis.from_url(config.redis_url)
        self.limiter = Limiter(
            self.redis,
            owner=config.process,
            has_legacy_fields=config.legacy_ratelimit_headers,
            held_bodies=HeldBodies(config.held_bodies_max_bytes, config.held_bodies_process_max_bytes),
        )
        self.connections = Connections(self.snapshot)
        self.side_threads = SideThreads()
        self.usage = Usage(config, self.connections, self.snapshot, None)  # type: ignore[arg-type]  # it is never flushed here
        self.upstreams = UpstreamClient(config)
        self.key_sets = KeySets(self.snapshot, self.upstreams, config)
        self.tickets = Tickets(self.redis, config, self.snapshot, self.key_sets)
        self.authenticator = Authenticator(config, self.snapshot, self.key_sets, self.tickets)
        self.meter = Meter(self.connections, self.usage)
        self.build_path()
        self.draining = False
        self.never_calls: list[Refused] = []
        """What was refused before it became a call."""
        self.port = 0
        self.server: Server
        self.capacity = Capacity(config)

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """Outcome and error class of each call that ended, as usage has counted them."""
        return [(label[5], label[6]) for label, tally in self.usage._tallies.items() for _ in range(tally.calls)]

    def build_path(self) -> None:
        """Build the policies and the pipeline from the parts that the plane has by now."""
        self.policies = policies_for(self)
        self.policies.follow(self.connections)
        dispatcher = Dispatcher(self.policies, self.limiter, self._run_handler)
        refused_calls = RefusedCalls(self.config.refused_per_minute)
        self.pipeline = Pipeline(self.authenticator, self.limiter, dispatcher.handle, self.meter, refused_calls)

    def _run_handler(self, call: Call) -> Awaitable[Reply]:
        return self.handlers[call.handler](self, call)

    async def stop(self) -> None:
        self.draining = True
        await self.connections.drain(1)

    async def release(self) -> None:
        await self.limiter.stop()
        await self.key_sets.stop()
        await self.upstreams.close()
        await self.redis.aclose()


def route(name: str, path: str, url: str, **more: Any) -> dict[str, Any]:
    document = {"methods": [], "protocol": "http", "policies": [], "reserved_override": False, **more}
    handler = {"type": "upstream", "url": url, **more.pop("handler", {})}
    return {**document, "name": name, "path": path, "handler": handler}


@asynccontextmanager
async def running(
    folder: Path,
    routes: Iterable[Mapping[str, Any]],
    *,
    is_direct: bool = True,
    is_drained: bool = False,
    limits: list[dict[str, Any]] | None = None,
    scopes: list[str] | None = None,
    redis_url: str = f"redis://127.0.0.1:{NOWHERE}",
    capacity: Capacity | None = None,
    **settings: Any,
) -> AsyncIterator[HttpPlane]:
    """Serve these routes on a free port; ``is_direct=False`` sends every call through ASGI's messages."""
    config = Config(
        process="test",
        kind="web",
        data_dir=folder,
        nats_url="nats://127.0.0.1:1",
        redis_url=redis_url,
        key_pepper=PEPPER,
        secret_key=b"secret",
        public_url="http://gateway.test",
        **settings,
    )
    plane = HttpPlane(config, routes, limits or [], scopes if scopes is not None else ["call:*"])
    plane.capacity = capacity or plane.capacity

    try:
        async with served(
            plane,
            config,
            is_direct=is_direct,
            capacity=plane.capacity,
            drain=plane.stop if is_drained else None,
            is_carrying=driving.driver is not Driver.PATH,
        ) as plane.server:
            if driving.driver is Driver.CARRIER:
                await driving.warm(plane)
            yield plane
    finally:
        await plane.release()


@dataclass(slots=True)
class Asked:
    """A request as an upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass(slots=True)
class Upstream:
    """An upstream: hands each request to ``answer``, which writes what it likes. It counts its connections."""

    answer: Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]]
    """Returns True if the connection must not be reused."""
    reads_bodies: bool = True
    port: int = 0
    requests: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                requested = await read_head(reader)
                if self.reads_bodies:
                    requested.body = await read_body(reader, requested)
                self.requests.append(requested)
                if await self.answer(requested, reader, writer):
                    return
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def upstream_that(
    answer: Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]], **more: Any
) -> AsyncIterator[Upstream]:
    upstream = Upstream(answer, **more)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await upstream.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await stop_tasks(*tasks)


def say(text: str | bytes) -> Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Answer these bytes to everything."""

    async def answer(requested: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text if isinstance(text, bytes) else text.encode("latin-1"))

    return answer


async def echo(requested: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the request's target and its body."""
    body = requested.target.encode() + b" " + requested.body
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def large(requested: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with more than any buffer takes."""
    size = 1 << 26
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    writer.write(bytes(size))
    await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Asked(method, target, headers)


async def read_body(reader: asyncio.StreamReader, requested: Asked) -> bytes:
    if requested.header("transfer-encoding"):
        return await read_chunks(reader)
    return await reader.readexactly(int((requested.header("content-length") or ["0"])[0]))


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return body


@dataclass(slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} is said {len(values)} times"
        return values[0] if values else None


class Caller:
    """A client's connection."""

    def __init__(self, plane: HttpPlane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._plane = plane
        self.reader = reader
        self.writer = writer

    def head(self, method: str, path: str, *lines: str, key: Any = "") -> bytes:
        key = self._plane.key if key == "" else key
        all_ = [f"{method} {path} HTTP/1.1", "host: gateway.test", *lines]
        if key is not None:
            all_.append(f"x-api-key: {key.text}")
        return "\r\n".join([*all_, "", ""]).encode("latin-1")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, is_head: bool = False) -> Answer:
        async with asyncio.timeout(WAIT_S):
            answer = await self.answer_head()
            if is_head or answer.status in (204, 304):
                return answer
            length = answer.header("content-length")
            if answer.header("transfer-encoding") == "chunked":
                answer.body = await read_chunks(self.reader)
            elif length is not None:
                answer.body = await self.reader.readexactly(int(length))
            else:
                answer.body = await self.reader.read()
            return answer

    async def answer_head(self) -> Answer:
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(int(first.split(" ")[1]), headers)

    async def ask(self, method: str, path: str, *lines: str, body: bytes = b"", key: Any = "") -> Answer:
        more = (f"content-length: {len(body)}",) if body else ()
        self.send(self.head(method, path, *lines, *more, key=key) + body)
        return await self.answer(is_head=method == "HEAD")

    async def is_closed(self) -> bool:
        """Wait until the gateway has closed; what it still sends is an error."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    def abort(self) -> None:
        """Reset the connection; closing it would only end the sending side, after which a client may still read."""
        if not self.writer.transport.is_closing():
            connected = self.writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def caller_of(plane: HttpPlane) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port, limit=1 << 24)
    caller = Caller(plane, reader, writer)
    try:
        yield caller
    finally:
        caller.abort()


async def ask(plane: HttpPlane, method: str, path: str, *lines: str, body: bytes = b"", key: Any = "") -> Answer:
    """Ask once, on a connection of its own."""
    async with caller_of(plane) as caller:
        return await caller.ask(method, path, *lines, body=body, key=key)


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)
