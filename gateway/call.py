"""What walks the path: a Call, the Principal it proves to be, and the Reply it comes to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

if TYPE_CHECKING:
    from gateway.connections.open import Connection
    from gateway.connections.requests import Request
    from gateway.credentials.public_keys import PublicKey
    from gateway.limits.budget import Budget
    from gateway.limits.counters import Counter
    from gateway.refusals import Refused
    from gateway.snapshot.documents import Issuer, Standing
    from gateway.snapshot.picture import Limit, Route

Headers = list[tuple[bytes, bytes]]


def has_body(headers: Headers) -> bool:
    """Say whether a request with these headers has a body (RFC 9112 6)."""
    for name, value in headers:  # noqa: SIM110 - each request passes here, and a generator costs three times as much
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


class Protocol(StrEnum):
    """The five doors, and what operators connect. The value is the label in usage and the management API."""

    HTTP = "http"
    SSE = "sse"
    WEBSOCKET = "websocket"
    MQTT = "mqtt"
    AMQP = "amqp"
    CONNECTOR = "connector"
    """Another broker, of the operator's: no door of callers, so none that a channel could close."""


class Verb(StrEnum):
    """What a scope may allow: the part before its colon."""

    CALL = "call"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class Right:
    """One right that a call needs: ``publish:sensors/temperature``."""

    verb: Verb
    name: str
    text: str = field(init=False, compare=False)
    """As a scope would say it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.verb.value}:{self.name}")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A JWT that was proved: by whose word, with which of their keys, and what it claims (docs/identity.md)."""

    issuer: Issuer
    signer: PublicKey
    algorithm: str
    claims: Mapping[str, Any]
    standing: Standing
    """How its consumer stood when the principal was made."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key or token was proved to belong to, as of one snapshot revision."""

    consumer: str
    key: str
    """The id of the key, or ``jwt:ISSUER`` for the holder of a token."""
    tier: str
    scopes: tuple[str, ...] = ()
    ceiling: tuple[str, ...] | None = None
    """The tier's scopes: what is not in both is not allowed. None where the tier bounds nothing."""
    limits: tuple[Limit, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    """Unix seconds; None where the credential does not expire."""
    token: Token | None = None
    """What the holder of a JWT has proved; None for a key's."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller showed of itself, before anything was believed."""

    kind: str
    """``key`` (an API key), ``token`` (a JWT) or ``ticket`` (a single-use connect ticket)."""
    value: str


class Exchange(Interface):
    """The caller's side of an HTTP or SSE call, as the accepting server lends it to a handler.

    Reading and sending raise :class:`ClientGone` once the caller has hung up.
    """

    async def read(self) -> bytes:
        """Give the next part of the body, ``b""`` at its end. Raises Refused ``too-large`` past the limit."""

    async def whole(self) -> bytes:
        """Read the body to its end; ``read`` gives it again."""

    def hold(self, body: bytes) -> None:
        """Give this body to who reads next, in place of what was read whole."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; ``more=False`` ends it."""

    async def gone(self) -> None:
        """Return when the caller has hung up."""


class Socket(Interface):
    """The caller's side of a WebSocket, as the accepting server lends it to a handler."""

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Answer ``101``."""

    async def receive(self) -> str | bytes:
        """Give the next message. Raises :class:`ClientGone` with the peer's close code once it is gone."""

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises :class:`ClientGone`."""

    async def tell(self, message: str | bytes) -> None:
        """Send a word of our own, which passes no policy. Raises :class:`ClientGone`."""

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame; never raises."""


class ClientGone(Exception):
    """The caller hung up: nothing can be sent to it any more."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class Call:
    """One request, or one connection for all its life, on its way down the path."""

    protocol: Protocol
    address: str
    """The path (HTTP, SSE, WebSocket) or the topic or channel address, normalised once."""
    ip: str
    handler: str = ""
    """Which handler takes it: a key of ``gateway.handle.HANDLERS``."""
    target: str = ""
    """The route's name or the channel's address: the label in usage and in the ledger."""
    method: str = "GET"
    raw_path: bytes = b""
    """The path as it came, before its one normalisation."""
    query: bytes = b""
    headers: Headers = field(default_factory=list)
    """Names in lower case, as ASGI gives them."""
    credential: Credential | None = None
    is_anonymous: bool = False
    """Needs no credential: a signed link is its own proof."""
    origin: str | None = None
    rights: tuple[Right, ...] = ()
    """All that it needs before it is handled; messages inside a connection need their own."""
    route: Route | None = None
    added_headers: tuple[tuple[bytes, bytes], ...] = ()
    """What the route's policies tell the upstream: sent as it is, credentials too."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the route's or endpoint's path parameters matched."""
    peer: Any = None
    """The :class:`Exchange` (HTTP, SSE) or :class:`Socket` (WebSocket) of this call."""
    principal: Principal | None = None
    connection: Connection | None = None
    """Set for SSE, WebSocket, MQTT and AMQP once the connection is counted as open."""
    request: Request | None = None
    """Set while an upstream answers: it ends where the caller loses its right to the answer."""
    budget: Budget | None = None
    """What the limiter knows of this call: its counters and open slots."""
    limited_by: tuple[Counter, ...] = ()
    """The limits that the route has of its own for this call, to be told beside its caller's."""
    at_end: Callable[[], Awaitable[None]] | None = None
    """What a policy has to do once the call was handled, whatever became of it."""
    takes_place: bool = False
    """It leaves something open, a job: what is left of such places is told, too."""
    traceparent: str | None = None
    """The trace that it is part of, as it is passed on (:mod:`gateway.tracing`)."""
    tracestate: str | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def who(self) -> Principal:
        """The proved principal; only after ``authenticate``."""
        assert self.principal is not None, "the call was not authenticated"
        return self.principal

    def header(self, name: bytes) -> str | None:
        """Give the first header of that lower-case name, as latin-1 text."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None


@dataclass(slots=True)
class Reply:
    """What became of a call."""

    status: int = 0
    """The HTTP status sent, 101 for an accepted WebSocket; 0 where the protocol has none."""
    refused: Refused | None = None
    error_class: str = ""
    """A label of the connection ledger (see :class:`gateway.refusals.ErrorClass`), empty where all was well."""
    close_code: int = 0
    closed_by: str = ""
    """``client``, ``gateway`` or ``upstream``; empty where nothing stayed open."""
    messages_in: int = 0
    """Events published by a call that has no connection of its own."""
    messages_out: int = 0
    """Events given by such a call."""
    bytes_in: int = 0
    bytes_out: int = 0


def abandoned() -> Reply:
    """Say that the caller went away before there was an answer (status 499 in usage)."""
    return Reply(status=499, error_class="client_gone", closed_by="client")
