"""Answers on their way through the policies of their route: held whole where a policy has to see them whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.policies.made import made_of
from gateway.policies.messages import Events
from gateway.policies.policy import Answered, Policy, Wants
from gateway.policies.shadow import try_answer
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.protocols.exchange import Exchange

WITHOUT_BODY = frozenset({204, 304})
OF_THE_BYTES = frozenset({b"etag", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest"})
"""Headers that speak of the very bytes, and are wrong once these have changed."""


class PolicedExchange:
    """Implements :class:`gateway.call.Exchange` over that of the server; all but the answer is that one's."""

    __slots__ = ("_answered", "_answering", "_call", "_events", "_exchange", "_parts", "_plane", "_size", "status")

    def __init__(self, plane: Plane, call: Call, exchange: Exchange) -> None:
        self._plane = plane
        self._call = call
        self._exchange = exchange
        self._answered = Answered(0, [])
        self._answering: list[tuple[Policy, Wants]] = []
        self._parts: list[bytes] | None = None
        """What is held of the answer's body; None where it is not held."""
        self._size = 0
        self._events: Events | None = None
        self.status = 0
        """The status that was sent, which a policy may have chosen."""

    @classmethod
    def join(cls, plane: Plane, call: Call) -> None:
        """Stand before a stream of events that is open, between two of them."""
        if not isinstance(call.peer, cls):
            call.peer = joined = cls(plane, call, call.peer)
            joined._events = Events(plane, call)

    @property
    def is_read(self) -> bool:
        """Nothing of the body is left to read."""
        return self._exchange.is_read

    @property
    def bytes_in(self) -> int:
        """What was read of the body."""
        return self._exchange.bytes_in

    @property
    def has_started(self) -> bool:
        """The head of the answer is on its way."""
        return self._exchange.has_started

    async def read(self) -> bytes:
        """Give the next part of the body."""
        return await self._exchange.read()

    async def read_all(self) -> bytes:
        """Read the body to its end; ``read`` gives it again."""
        return await self._exchange.read_all()

    async def gone(self) -> None:
        """Return when the caller has hung up."""
        await self._exchange.gone()

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has hung up; None stops that."""
        self._exchange.watch(gone)

    async def start(self, status: int, headers: Headers) -> None:
        """Take the head of the answer; it goes out at once where no policy has to see the body. Raises Refused."""
        call, self._answered = self._call, Answered(status, headers)
        wanting = [(policy, policy.wants(call, status, headers)) for policy in made_of(call.route).answering]  # type: ignore[arg-type]
        whole = [policy for policy, wants in wanting if wants is Wants.WHOLE]
        if call.method == "HEAD" or status in WITHOUT_BODY:
            self._answering = [(policy, wants) for policy, wants in wanting if wants is Wants.HEAD]
            if any(not policy.is_shadow for policy in whole):
                self._forget_bytes(also=b"content-length")
        else:
            self._answering = [(policy, wants) for policy, wants in wanting if wants is not Wants.NOTHING]
            if whole:
                self._parts = []
                return
        await self._begin()

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body, or hold it. Raises Refused where a policy refuses the answer that is whole now."""
        if self._parts is not None:
            self._parts.append(body)
            self._size += len(body)
            if self._size > self._plane.config.body_max_bytes:
                await self._overflow(more=more)
            elif not more:
                await self._release()
            return
        if self._events is not None and body:
            # Nothing may be left of it yet; the head is not to wait for more.
            body = await self._events.passed(body)
        await self._exchange.send(body, more=more)

    async def _begin(self) -> None:
        """Send the head, as the policies that look at it alone want it."""
        answered = self._answered
        for policy, _ in self._answering:
            await self._apply(policy)
        self.status = answered.status
        if is_event_stream(answered.headers):
            self._events = Events(self._plane, self._call)
        await self._exchange.start(answered.status, answered.headers)

    async def _release(self) -> None:
        """Send the answer, now that it is whole."""
        answered, given = self._answered, b"".join(self._parts or ())
        answered.body, self._parts = given, None
        for policy, _ in self._answering:
            await self._apply(policy)
        body = b"" if answered.status in WITHOUT_BODY else answered.body
        if body != given:
            self._forget_bytes(also=b"content-length")
        if answered.status not in WITHOUT_BODY and not any(name == b"content-length" for name, _ in answered.headers):
            answered.headers = [*answered.headers, (b"content-length", str(len(body)).encode())]
        self.status = answered.status
        await self._exchange.start(answered.status, answered.headers)
        await self._exchange.send(body, more=False)

    async def _overflow(self, *, more: bool) -> None:
        """Let go of an answer that is too large to be held, where policies are only tried on it; else refuse it."""
        if any(wants is Wants.WHOLE and not policy.is_shadow for policy, wants in self._answering):
            most = self._plane.config.body_max_bytes
            raise Refused(
                Reason.UPSTREAM_UNAVAILABLE,
                f"The answer holds more than the {most} bytes that this route's policies may hold back.",
                cause="answer-too-large",
            )
        self._answering = [(policy, wants) for policy, wants in self._answering if wants is not Wants.WHOLE]
        held, self._parts = b"".join(self._parts or ()), None
        await self._begin()
        await self._exchange.send(held, more=more)

    async def _apply(self, policy: Policy) -> None:
        if policy.is_shadow:
            await try_answer(self._plane, self._call, policy, self._answered)
        else:
            await policy.answer(self._plane, self._call, self._answered)

    def _forget_bytes(self, also: bytes = b"") -> None:
        answered = self._answered
        answered.headers = [
            header for header in answered.headers if header[0] not in OF_THE_BYTES and header[0] != also
        ]


def is_event_stream(headers: Headers) -> bool:
    """Say whether an answer with these headers is a stream of server-sent events."""
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
