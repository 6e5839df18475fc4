"""The values that pass along the path: a Call, and the Reply that it comes to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from gateway.credentials.api_keys import Credential
from gateway.limits.budget import Budget
from gateway.limits.counters import Counter
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Route
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right
from gateway.wire.header_fields import Headers


class OpenConnection(Interface):
    """The account of a call's open connection: what handlers count on it, and how it is closed."""

    id: str
    throttled: int

    def received(self, bytes_: int, messages: int = 1) -> None:
        """Count incoming messages."""

    def sent(self, bytes_: int, messages: int = 1) -> None:
        """Count outgoing messages."""

    def refused(self, refused: Refused) -> None:
        """Count a message that was refused while the connection stays open."""

    def may_tell_held(self, now: float) -> bool:
        """Return whether the client may be notified now that a limit delays what it is sent: not with each message."""

    def close(self, refused: Refused) -> None:
        """Close the connection with this refusal; only the first call has an effect."""


class InFlight(AbstractContextManager[None], Interface):
    """A request whose answer is still being passed on. Ending it cancels the task that serves it."""

    def end(self, refused: Refused) -> None:
        """End the request with this refusal; only the first call has an effect. Returns at once."""


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
    connection: OpenConnection | None = None
    """Set for SSE, WebSocket, MQTT and AMQP once the connection is counted as open."""
    request: InFlight | None = None
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
    def caller(self) -> Principal:
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
