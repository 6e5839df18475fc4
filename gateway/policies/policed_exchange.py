"""An exchange whose answers pass the policies of a route: held whole where a policy has to see them whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.policies.policed_events import PolicedEvents
from gateway.policies.policy import OutgoingAnswer, Policy, Wants
from gateway.refusals import Reason, Refused
from gateway.wire.event_stream import MEDIA_TYPE, media_type
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.peer import Exchange
    from gateway.policies.route_policies import RoutePoliciesCache
    from gateway.policies.shadow import ShadowRunner

WITHOUT_BODY = frozenset({204, 304})
BYTE_HEADERS = frozenset({b"etag", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest"})
"""Headers that describe the exact bytes of a body, and are wrong once these have changed."""


class PolicedExchange:
    """Implements :class:`gateway.peer.Exchange` over another exchange, to which all but the answer is delegated."""

    __slots__ = (
        "_answer", "_answering", "_body_max_bytes", "_call", "_events", "_exchange", "_new_events", "_parts", "_routes",
        "_shadows", "_size", "status",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        exchange: Exchange,
        *,
        routes: RoutePoliciesCache,
        shadows: ShadowRunner,
        new_events: Callable[[Call], PolicedEvents],
        body_max_bytes: int,
    ) -> None:
        self._call = call
        self._exchange = exchange
        self._routes = routes
        self._shadows = shadows
        self._new_events = new_events
        self._body_max_bytes = body_max_bytes
        self._answer = OutgoingAnswer(0, [])
        self._answering: list[tuple[Policy, Wants]] = []
        self._parts: list[bytes] | None = None
        """The held parts of the answer's body; None where it is not held."""
        self._size = 0
        self._events: PolicedEvents | None = None
        self.status = 0
        """The status that was sent, which a policy may have chosen."""

    @property
    def can_write_now(self) -> bool:
        """Nothing passes unseen."""
        return False

    def write_now(self, data: bytes) -> None:
        """Never called: nothing passes unseen."""
        raise NotImplementedError

    def join(self) -> None:
        """Take over a stream of events whose head was already sent, between two of its events."""
        self._events = self._new_events(self._call)

    @property
    def is_read(self) -> bool:
        """Nothing of the body is left to read."""
        return self._exchange.is_read

    @property
    def body_max_bytes(self) -> int:
        """The largest body that is read."""
        return self._exchange.body_max_bytes

    @body_max_bytes.setter
    def body_max_bytes(self, most: int) -> None:
        self._exchange.body_max_bytes = most

    @property
    def bytes_in(self) -> int:
        """How many bytes of the body were read."""
        return self._exchange.bytes_in

    @property
    def has_started(self) -> bool:
        """The head of the answer is being sent, or was."""
        return self._exchange.has_started

    @property
    def expects_continue(self) -> bool:
        """The client waits for ``100 Continue`` before it sends the body."""
        return self._exchange.expects_continue

    @property
    def has_part(self) -> bool:
        """A read of the body returns, or raises, at once."""
        return self._exchange.has_part

    async def admit_body(self) -> None:
        """Check and charge the announced length of the body ahead of the first read."""
        await self._exchange.admit_body()

    async def read(self) -> bytes:
        """Return the next part of the body."""
        return await self._exchange.read()

    async def read_all(self) -> bytes:
        """Return the whole body; ``read`` returns it again."""
        return await self._exchange.read_all()

    async def gone(self) -> None:
        """Return when the caller has disconnected."""
        await self._exchange.gone()

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has disconnected; None stops that."""
        self._exchange.watch(gone)

    def probe_with(self, part: bytes, may_send: Callable[[], bool] | None = None) -> None:
        """Send this part of a stream once the caller has ended its sending side."""
        self._exchange.probe_with(part, may_send)

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim response."""
        self._exchange.inform(status, headers)

    def name_status(self, status: int, phrase: bytes) -> None:
        """Send this reason phrase, unless a policy changes the status."""
        self._exchange.name_status(status, phrase)

    def trail(self, trailers: Headers) -> None:
        """Send trailers, unless a policy sees the answer: they would pass it unseen, or describe another body."""
        if all(policy.is_shadow for policy, _ in self._answering):
            self._exchange.trail(trailers)

    async def start(self, status: int, headers: Headers) -> None:
        """Take the head of the answer; it is sent at once unless a policy has to see the body. Raises Refused."""
        call, self._answer = self._call, OutgoingAnswer(status, headers)
        policies = self._routes.of(call.route).answering if call.route is not None else ()
        wanted = [(policy, policy.wants(call, status, headers)) for policy in policies]
        whole = [policy for policy, wants in wanted if wants is Wants.WHOLE]
        if call.method == "HEAD" or status in WITHOUT_BODY:
            self._answering = [(policy, wants) for policy, wants in wanted if wants is Wants.HEAD]
            if any(not policy.is_shadow for policy in whole):
                self._remove_byte_headers(also=b"content-length")
        else:
            self._answering = [(policy, wants) for policy, wants in wanted if wants is not Wants.NOTHING]
            if whole:
                self._parts = []
                return
        await self._begin()

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body, or hold it. Raises Refused where a policy refuses the completed answer."""
        if self._parts is not None:
            self._parts.append(body)
            self._size += len(body)
            if self._size > self._body_max_bytes:
                await self._overflow(more=more)
            elif not more:
                await self._release()
            return
        if self._events is not None and body:
            # Sent even if nothing is left of it: the head must not wait for the next event.
            body = await self._events.passed(body)
        await self._exchange.send(body, more=more)

    async def _begin(self) -> None:
        """Apply the policies that need only the head, and send it."""
        answer = self._answer
        for policy, _ in self._answering:
            await self._apply(policy)
        self.status = answer.status
        if media_type(answer.headers) == MEDIA_TYPE:
            self._events = self._new_events(self._call)
        await self._exchange.start(answer.status, answer.headers)

    async def _release(self) -> None:
        """Apply the policies to the completed answer, and send it."""
        answer, received = self._answer, b"".join(self._parts or ())
        answer.body, self._parts = received, None
        for policy, _ in self._answering:
            await self._apply(policy)
        body = b"" if answer.status in WITHOUT_BODY else answer.body
        if body != received:
            self._remove_byte_headers(also=b"content-length")
        if answer.status not in WITHOUT_BODY and not any(name == b"content-length" for name, _ in answer.headers):
            answer.headers = [*answer.headers, (b"content-length", str(len(body)).encode())]
        self.status = answer.status
        await self._exchange.start(answer.status, answer.headers)
        await self._exchange.send(body, more=False)

    async def _overflow(self, *, more: bool) -> None:
        """Refuse an answer that is too large to be held; where only shadows wanted it whole, send it instead."""
        if any(wants is Wants.WHOLE and not policy.is_shadow for policy, wants in self._answering):
            raise Refused(
                Reason.UPSTREAM_UNAVAILABLE,
                f"The answer exceeds the {self._body_max_bytes} bytes that are held for the policies of this route.",
                cause="answer-too-large",
            )
        self._answering = [(policy, wants) for policy, wants in self._answering if wants is not Wants.WHOLE]
        held, self._parts = b"".join(self._parts or ()), None
        await self._begin()
        await self._exchange.send(held, more=more)

    async def _apply(self, policy: Policy) -> None:
        if policy.is_shadow:
            await self._shadows.answer(self._call, policy, self._answer)
        else:
            await policy.answer(self._call, self._answer)

    def _remove_byte_headers(self, also: bytes = b"") -> None:
        answer = self._answer
        answer.headers = [header for header in answer.headers if header[0] not in BYTE_HEADERS and header[0] != also]
