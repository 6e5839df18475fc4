"""Carries plain calls by callbacks: no task, no future, one write each way.

It drives the same steps as :mod:`gateway.pipeline`, which defines the path, for calls of which nothing must be awaited:

    idle --- begin: head known, admitted, a pooled connection ---> carried --- answered: whole and plain ---> idle
     |                                                               |
     +--- anything else: the path, in a task                         +--- anything else: hand_over to the path

Carried are requests of HTTP/1.1 to an upstream that arrive whole, on routes whose policies look at heads alone, by
callers that were proved before and are within their limits, as long as the response arrives whole. Heads pass line by
line; those that something changes pass by the functions of the path (:mod:`.changed_heads`). What is refused, delayed,
streamed, counted in tokens, retried or late is handed over with what is known, so that only the path decides about it.
See docs/architecture.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from gateway import tracing
from gateway.concurrency.room import make_room
from gateway.handlers.proxy.heads import BY_KEY, PRIVATE
from gateway.handlers.proxy.http import Sent, resume
from gateway.handlers.proxy.lines import Fate, field_of, request_lines, response_lines
from gateway.listening.memory import Level
from gateway.protocols.exchange import HSTS
from gateway.refusals import Refused
from gateway.server.changed_heads import call_of, changed_request, changed_response
from gateway.server.destinations import Destination
from gateway.server.exchange import CHUNKED, DirectExchange, chunk
from gateway.server.plans import Plan, Plans, Request
from gateway.wire.chunks import whole_body
from gateway.wire.header_fields import lines_of

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.plane import Plane
    from gateway.server.connection import HttpConnection
    from gateway.server.site import Site
    from gateway.upstream.connection import UpstreamConnection

HEAD_MAX_BYTES = 4096
"""Longer heads take the path, so that what is kept of plans has a bound."""
RESPONSES_KEPT, RESPONSE_MAX_BYTES = 1024, 1024
END = b"\r\n\r\n"
UPGRADE = b"pgrade:"
"""Of a head that asks for an upgrade, however it is capitalized by those who write it as words."""
_REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([234][0-9][0-9]) [\x20-\x7e]{1,200}")
BODILESS = frozenset({204, 304})
PECULIAR = frozenset({205, 426})
"""Responses whose length means nothing, or whose head has what others must not."""
BY_KEY_LINE = lines_of((BY_KEY,))
PRIVATE_LINE = lines_of((PRIVATE,))


class Known(NamedTuple):
    """A head that was judged, and what is sent to the upstream for it."""

    hashed: bytes
    """The keyed hash of the head, which holds a credential."""
    plan: Plan
    destination: Destination
    length: int
    """Of its body."""
    head: bytes
    """The head for the upstream."""


class Response(NamedTuple):
    """The head of a response, and how it passes back."""

    status: int
    length: int | None
    """Of its body, where the head says so."""
    is_chunked: bool
    status_line: bytes
    lines: bytes
    names_upstream: bool
    """Its lines pass by the function of the path instead, which rewrites them."""

    def body(self, data: bytes, begins: int, *, is_of_head: bool) -> bytes | None:
        """Return the body, which begins there; None unless it has arrived whole, with nothing behind it."""
        if is_of_head or self.status in BODILESS:
            return b"" if self.status and len(data) == begins else None
        if self.is_chunked:
            return whole_body(data, begins)
        return data[begins:] if self.length is not None and len(data) == begins + self.length else None


UNCLEAR = Response(0, None, False, b"", b"", False)
"""One that cannot be carried."""


class Carrier:
    """What one process needs to carry calls: its plans, and what was judged so far."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.plans = Plans(site.is_elsewhere)
        self._head_max_bytes = min(HEAD_MAX_BYTES, site.bounds.head_max_bytes, site.bounds.path_max_bytes)
        self._request_lines = request_lines()
        self._response_lines = response_lines()
        self._responses: dict[bytes, Response] = {}
        """By their heads. A head with a line that may hold a secret is not kept."""
        self._own: tuple[object, object, bytes] = (None, None, b"")

    def begin(self, connection: HttpConnection, data: bytes) -> CarriedCall | None:
        """Carry the request that begins with these bytes, on an idle connection; None if it has to take the path."""
        plane = self.site.plane()
        end = data.find(END, 0, self._head_max_bytes)
        if end < 0 or plane is None or plane.draining or self.site.capacity.memory.level is not Level.ENOUGH:
            return None
        if data.find(UPGRADE, 0, end) >= 0:
            return None  # as judging its lines would find, too
        head = data[:end]
        hashed = self.plans.hashed(head)
        known = connection.known
        if known is None or known.hashed != hashed or not known.plan.holds(plane.snapshot):
            known = connection.known = self._judged(plane, connection.tcp.ip, head, hashed)
        if known is None or len(data) != end + len(END) + known.length:
            return None
        upstream = _admitted(plane, known)
        return None if upstream is None else CarriedCall(self, plane, connection, known, upstream, data)

    def _judged(self, plane: Plane, ip: str, head: bytes, hashed: bytes) -> Known | None:
        request_line, *lines = head.split(b"\r\n")
        if len(lines) > self.site.bounds.head_max_count:
            return None
        passed, others = self._request_lines.sort(lines)
        found = _request(ip, request_line, others)
        if found is None or found[1] > plane.config.body_max_bytes:
            return None
        request, length = found
        try:
            found_plan = self.plans.of(plane, request)
            if found_plan is None or _is_repeated(found_plan[0], head, request.credential):
                return None
            plan, destination = found_plan
            if plan.changes_requests:
                changed = changed_request(plane, call_of(plan, destination, lines))
                return Known(hashed, plan, destination, length, changed)
        except Refused:
            return None
        if length:
            passed.append(b"content-length: %d\r\n" % length)
        for_upstream = b"".join((destination.request_line, plan.host, *passed, plan.rest))
        return Known(hashed, plan, destination, length, for_upstream)

    def response(self, plane: Plane, head: bytes) -> Response:
        """Return how a response with this head passes back."""
        known = self._responses.get(head)
        if known is None:
            status_line, *lines = head.split(b"\r\n")
            passed, others = self._response_lines.sort(lines)
            known = _response(status_line, passed, others, plane.upstreams.via_line)
            if len(head) <= RESPONSE_MAX_BYTES and all(line in self._response_lines for line in lines):
                make_room(self._responses, RESPONSES_KEPT)
                self._responses[head] = known
        return known

    def own_lines(self, plane: Plane, connection: HttpConnection) -> bytes:
        """Return the lines that begin every response; the server renews its headers once a second."""
        headers, config = connection.server_state.default_headers, plane.config
        if self._own[0] is not headers or self._own[1] is not config:
            fixed = (HSTS,) if config.public_scheme == "https" else ()
            self._own = headers, config, lines_of((*headers, *fixed))
        return self._own[2]


def _request(ip: str, request_line: bytes, lines: Iterable[tuple[Fate, bytes]]) -> tuple[Request, int] | None:
    """Return what decides how a request is carried, and the length of its body; None if it has to take the path."""
    match = _REQUEST_LINE.fullmatch(request_line)
    naming: list[bytes] = []
    once: dict[Fate, bytes] = {}
    for fate, line in lines:
        if fate is Fate.NAMES:
            naming.append(line)
        elif fate in once:
            return None
        else:
            once[fate] = line
    host, credential, length = once.get(Fate.HOST), once.get(Fate.CREDENTIAL), once.get(Fate.LENGTH)
    if Fate.ORIGIN in once:
        naming.append(once[Fate.ORIGIN])
    if match is None or host is None or credential is None or Fate.UNCLEAR in once:
        return None
    if length is not None and match[1] in (b"GET", b"HEAD"):
        return None
    request = Request(ip, match[1], match[2], (host, *naming), credential)
    return request, 0 if length is None else int(field_of(length)[1])


def _is_repeated(plan: Plan, head: bytes, line: bytes) -> bool:
    """Return whether a head holds the credential in other places than its line, where the path takes it out."""
    credential = plan.call.credential
    assert credential is not None, "plans are of proved callers"
    secret = credential.value.encode()
    return head.count(secret) > line.count(secret)


def _response(status_line: bytes, passed: list[bytes], others: list[tuple[Fate, bytes]], via: bytes) -> Response:
    """Return how a response passes back: with what ends its body."""
    match = _STATUS_LINE.fullmatch(status_line)
    lines = [(fate, line) for fate, line in others if fate is not Fate.NAMES_UPSTREAM]
    once = dict(lines)
    if match is None or len(once) < len(lines) or Fate.UNCLEAR in once:
        return UNCLEAR
    status, length, is_chunked = int(match[1]), once.get(Fate.LENGTH), Fate.CHUNKED in once
    is_framed = length is not None or is_chunked
    if status in PECULIAR or (status in BODILESS and is_framed) or (length is not None and is_chunked):
        return UNCLEAR
    cached = BY_KEY_LINE if Fate.CACHES in once else PRIVATE_LINE
    return Response(
        status=status,
        length=None if length is None else int(field_of(length)[1]),
        is_chunked=is_chunked,
        status_line=status_line + b"\r\n",
        lines=b"".join((*passed, cached, via)),
        names_upstream=len(lines) < len(others),
    )


def _admitted(plane: Plane, known: Known) -> UpstreamConnection | None:
    """Charge the call and its body, and return a connection; or charge nothing, if something must be awaited."""
    call, limiter, destination = known.plan.call, plane.limiter, known.destination
    upstream = plane.upstreams.lend_now(destination.origin, destination.timeouts, may_repeat=known.plan.may_repeat)
    if upstream is None:
        return None
    if limiter.admit_now(call):
        if not known.length or limiter.charge_now(call, bytes_in=known.length):
            return upstream
        limiter.withdraw(call)
    plane.upstreams.take_back(upstream)
    return None


class CarriedCall:
    """One request that is carried, from when it was admitted to when its response is written or it is handed over."""

    __slots__ = ("_began", "_carrier", "_connection", "_data", "_known", "_plane", "_upstream")

    def __init__(
        self,
        carrier: Carrier,
        plane: Plane,
        connection: HttpConnection,
        known: Known,
        upstream: UpstreamConnection,
        data: bytes,
    ) -> None:
        self._carrier = carrier
        self._plane = plane
        self._connection = connection
        self._known = known
        self._upstream = upstream
        self._data = data
        self._began = time.monotonic()
        connection.tcp.carries(known.plan.call.ip)
        plane.connections.in_flight.carried.add(self)
        upstream.deadline = self._began + upstream.first_byte_s
        upstream.carry(self, self._request, is_head_request=known.plan.call.method == "HEAD")

    @property
    def expires_at(self) -> float | None:
        """When the caller's credential expires."""
        return self._known.plan.principal.expires_at

    @property
    def _request(self) -> bytes:
        """What is sent to the upstream."""
        known = self._known
        return known.head + self._data[-known.length :] if known.length else known.head

    def answered(self, data: bytes) -> None:
        """Pass a response on that is whole; anything else is handed over."""
        plane, connection, plan = self._plane, self._connection, self._known.plan
        end = data.find(END)
        response = self._carrier.response(plane, data[:end]) if end > 0 else UNCLEAR
        is_of_head = plan.call.method == "HEAD"
        body = response.body(data, end + len(END), is_of_head=is_of_head)
        if body is None or connection.flow.write_paused or not self._charge(len(body)):
            self.hand_over(data)
            return
        lines = self._lines_of(response, data[:end])
        if response.length is None and response.status not in BODILESS:
            lines += CHUNKED
            framed = b"" if is_of_head else b"".join(chunk(body, more=False))
        else:
            framed = body
        self._upstream.end_carrying(is_whole=True)
        plane.upstreams.take_back(self._upstream)
        own_lines = self._carrier.own_lines(plane, connection)
        connection.transport.write(b"".join((response.status_line, own_lines, lines, b"\r\n", framed)))
        latency_ms = (time.monotonic() - self._began) * 1000
        plane.usage.request_ended(plan.label, response.status, self._known.length, len(body), latency_ms)
        self._end()
        connection.carried_to_its_end()

    def _lines_of(self, response: Response, head: bytes) -> bytes:
        """Return the lines to pass back, but for those that begin and end every head."""
        plane, plan = self._plane, self._known.plan
        if response.names_upstream or plan.changes_responses:
            return changed_response(plane, self._call(), response.status, head.split(b"\r\n")[1:])
        return response.lines + plane.limiter.header_lines(plan.call)

    def _call(self) -> Call:
        """Return the call of this request."""
        known = self._known
        lines = self._data[: self._data.find(END)].split(b"\r\n")[1:]
        return call_of(known.plan, known.destination, lines)

    def _charge(self, length: int) -> bool:
        call = self._known.plan.call
        if not length or call.budget is None or not call.budget.bytes_out:
            return True
        return self._plane.limiter.charge_now(call, bytes_out=length)

    def hand_over(self, data: bytes = b"") -> None:
        """Let a task go on with the call, with what has arrived of the response."""
        connection, upstream, known = self._connection, self._upstream, self._known
        self._end()
        upstream.end_carrying(is_whole=False)
        call = self._call()
        if known.plan.changes_requests:
            self._plane.policies.inbound(call)
        call.started_at, call.tcp = self._began, connection.tcp
        if call.header(b"traceparent") is not None:
            tracing.begin(call)
        exchange = DirectExchange(self._plane, call, connection, keep_alive=True, takes_chunks=True, expects_100=False)
        exchange.go_on(resume(self._plane, call, Sent(upstream, self._request)), known.length)
        connection.go_on(exchange)
        if data:
            upstream.data_received(data)

    def _end(self) -> None:
        self._plane.connections.in_flight.carried.discard(self)
        # The connection refers to this call; as a cycle both would stay until a collection stops all traffic.
        self._connection.carried = None
