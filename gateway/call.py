"""The values that pass along the path: a Call, and the Reply that it comes to."""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from gateway.credentials.api_keys import Credential
from gateway.identity.client_address import Front
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

    def may_notify_delay(self, now: float) -> bool:
        """Return whether the client may be notified now that a limit delays what it is sent: not with each message."""

    def close(self, refused: Refused) -> None:
        """Close the connection with this refusal; only the first call has an effect."""


class CallersConnection(Interface):
    """The TCP connection that a call came by, as its listener counts it (:mod:`gateway.listening`)."""

    def asked_by(self, ip: str) -> None:
        """Count it as the client's for which a proxy passes on a request."""

    def proved(self) -> None:
        """Note that the call in progress has proved a credential."""

    def unproved(self) -> None:
        """Note that the call in progress is refused: its caller holds nothing here."""


class InFlight(AbstractContextManager[None], Interface):
    """A request whose answer is still being passed on. Ending it cancels the task that serves it."""

    def end(self, refused: Refused) -> None:
        """End the request with this refusal; only the first call has an effect. Returns at once."""


class TicketHold(Interface):
    """The use of a resumable ticket by a call, which another connection may take over."""

    def bind(self, close: Callable[[Refused], None]) -> None:
        """Close the call's connection by ``close`` once another one takes the ticket, or now if one already has."""

    def end(self, places: Collection[Future[Any]] = ()) -> None:
        """Release the ticket for a resumption, which may begin once ``places`` are free. Never waits, never raises."""


@dataclass(slots=True)
class Call:
    """One request, or one connection for all its life, on its way along the path."""

    protocol: Protocol
    address: str
    """The path (HTTP, SSE, WebSocket), or the topic or channel address, normalised once."""
    ip: str
    handler: str = ""
    """The name of its handler in :mod:`gateway.handlers.table`."""
    target: str = ""
    """The route's name or the channel's address: the label in usage and in the ledger."""
    method: str = "GET"
    raw_path: bytes = b""
    """The path as received, before normalisation."""
    query: bytes = b""
    has_empty_query: bool = False
    """Whether the target ends in a bare ``?``, which passes on."""
    headers: Headers = field(default_factory=list)
    """With lower-case names, as in ASGI."""
    credential: Credential | None = None
    is_anonymous: bool = False
    """Needs no credential: a signed link proves itself."""
    origin: str | None = None
    rights: tuple[Right, ...] = ()
    """The rights that it needs before it is handled; messages inside a connection need their own."""
    route: Route | None = None
    added_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that the route's policies add for the upstream, sent unchanged, credentials included."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The values of the path parameters of the route or endpoint."""
    peer: Any = None
    """The :class:`Exchange` (HTTP, SSE) or :class:`Socket` (WebSocket) of this call."""
    tcp: CallersConnection | None = None
    """The TCP connection that it came by; None under other servers than ours."""
    principal: Principal | None = None
    ticket: TicketHold | None = None
    """Set once it was authenticated by a resumable ticket."""
    connection: OpenConnection | None = None
    """Set for SSE, WebSocket, MQTT and AMQP once the connection is counted as open."""
    request: InFlight | None = None
    """Set while an upstream answers: it ends when the caller loses its right to the answer."""
    budget: Budget | None = None
    """The counters and open slots of this call."""
    limited_by: tuple[Counter, ...] = ()
    """The route's own limits that this call was charged to, reported beside its caller's."""
    at_end: Callable[[], Awaitable[None]] | None = None
    """Runs once the call was handled, whatever became of it: set by a policy."""
    takes_place: bool = False
    """It opens a job, so the places left for jobs are reported too."""
    traceparent: str | None = None
    """The trace context as passed on (:mod:`gateway.tracing`)."""
    tracestate: str | None = None
    front: Front | None = None
    """What a trusted proxy in front reports; None if there is none."""
    started_at: float = field(default_factory=time.monotonic)

    @property
    def caller(self) -> Principal:
        """The principal, available only after ``authenticate``."""
        assert self.principal is not None, "the call was not authenticated"
        return self.principal

    def header(self, name: bytes) -> str | None:
        """Return the first header of this lower-case name, decoded as latin-1."""
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
    """A label of the connection ledger (see :class:`gateway.refusals.ErrorClass`), empty if nothing failed."""
    close_code: int = 0
    closed_by: str = ""
    """``client``, ``gateway`` or ``upstream``; empty if nothing stayed open."""
    messages_in: int = 0
    """Events published by a call without a connection."""
    messages_out: int = 0
    """Events returned by such a call."""
    bytes_in: int = 0
    bytes_out: int = 0


ABANDONED = Reply(status=499, error_class="client_gone", closed_by="client")
"""The reply of a call whose client left before there was an answer (status 499 in usage). Shared, so never changed."""
