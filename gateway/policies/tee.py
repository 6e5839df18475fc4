"""``tee``: an upstream's stream of events is published to a channel while it is passed on.

Who lost the line (an AI answer, an MCP call) resumes at ``/v1/events`` from the last id that it saw, and others may
watch. The upstream is read to its end for them, for a while, though the caller has left.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from gateway.call import Call
from gateway.channels.publication import Publication
from gateway.log.event import JSON_TYPE
from gateway.peer import ClientGone
from gateway.policies.policy import Answered, BadOption, Policy, only
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal
from gateway.wire.event_stream import BOM, EventCutter, data_of, is_event_stream
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import parse
from gateway.wire.subjects import AddressError, subject_of

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.protocols.exchange import Exchange

logger = logging.getLogger(__name__)

OPTIONS = ("channel", "linger_s")
LINGER_S, LINGER_MAX_S = 60.0, 3600.0
END_TYPE = "tee.end"
"""The type of the event that ends a stream: watchers see no connection close."""
TEXT_TYPE = "text/plain; charset=utf-8"
LOG_EVERY_S = 60.0
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_EVENT_NAME = re.compile(rb"(?m)^event: ?([!-~]{1,100})\r?$")
_OWN_ID = re.compile(rb"(?m)^id(?::[^\r\n]*)?(?:\r\n|\n|\r)")
_told: dict[str, float] = {}
"""When a fault of each route's tee was last logged."""


class Tee(Policy):
    """Options: ``channel``, an address with ``{call}``, ``{consumer}`` and the path's parameters; ``linger_s``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, OPTIONS)
        self._channel = _address(options.get("channel"))
        self._linger_s = _seconds(options.get("linger_s", LINGER_S))

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Stand between the answer and its caller."""
        places = {**call.parameters, "call": secrets.token_hex(12), "consumer": call.caller.consumer}
        address = _PLACE.sub(lambda found: places.get(found[1], ""), self._channel)
        call.peer = TeeExchange(plane, call, call.peer, address, self._linger_s)
        call.at_end = call.peer.finish
        return None


class TeeExchange:
    """Implements :class:`gateway.call.Exchange` over another: what it sends is published first, and has its id."""

    def __init__(self, plane: Plane, call: Call, exchange: Exchange, address: str, linger_s: float) -> None:
        self._plane = plane
        self._exchange = exchange
        self._route = call.target
        self._address = address
        self._linger_s = linger_s
        self._call = replace(
            call,
            protocol=Protocol.CONNECTOR,
            peer=None,
            budget=None,
            # The operator's word: the caller need not have the right to publish there, and is not charged for it.
            principal=Principal(call.caller.consumer, call.caller.key, call.caller.tier, scopes=("publish:*",)),
        )
        self._cutter: EventCutter | None = None
        """None where nothing is published: the answer is no stream of events, or the log has failed."""
        self._abandon: Callable[[], None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._is_whole = False

    def __getattr__(self, name: str) -> Any:
        """Give all else of the exchange below."""
        return getattr(self._exchange, name)

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has hung up; of a stream, only when nobody waits for it any longer."""
        self._abandon = gone
        if self._cutter is None:
            self._exchange.watch(gone)

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head; that of a stream tells where it can be resumed."""
        if 200 <= status < 300 and is_event_stream(headers) and (begins := await self._begin()) is not None:
            self._exchange.watch(self._left)
            url = f"{self._plane.config.public_url}/v1/events?channel={quote(self._address, safe='')}&from={begins}"
            headers = [header for header in headers if header[0] != b"content-length"]
            headers += [(b"link", f'<{url}>; rel="monitor"; type="text/event-stream"'.encode())]
        await self._exchange.start(status, headers)

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Publish the events that are whole now, then send them. Raises ClientGone where nobody resumes."""
        if self._cutter is not None:
            body = await self._teed(self._cutter, body, more=more)
        self._is_whole = not more
        if self._is_lost and self._cutter is not None:
            return
        try:
            await self._exchange.send(body, more=more)
        except ClientGone:
            if self._cutter is None or not self._linger_s:
                raise
            self._left()

    async def finish(self) -> None:
        """Say in the channel that this was all, whether the upstream said so or not."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._cutter is not None:
            said = orjson.dumps({"type": END_TYPE, "complete": self._is_whole})
            await self._publish([Publication(self._address, said, attributes={"type": END_TYPE})])
            self._cutter = None

    async def _begin(self) -> str | None:
        """Find where the stream will begin in the channel; None where it cannot be published."""
        try:
            found = self._plane.snapshot.channel(self._address)
            if found is None:
                raise Refused(Reason.NOT_FOUND, f"There is no channel at {self._address}.")
            last = await self._plane.log.last(found[0])
        except Refused as refused:
            self._failed(refused)
            return None
        self._cutter = EventCutter()
        return str(last) if last else "earliest"

    async def _teed(self, cutter: EventCutter, body: bytes, *, more: bool) -> bytes:
        events = cutter.cut(body)
        if not more and (rest := cutter.rest()):
            events.append(rest)
        if not cutter.is_between and more:
            self._failed(Refused(Reason.TOO_LARGE, "An event is too large to be published."))
            return b"".join([*events, cutter.rest()])
        data = [data_of(event) for event in events]
        wanted = [_publication(self._address, event, text) for event, text in zip(events, data, strict=True) if text]
        ids = iter(await self._publish(wanted))
        return b"".join(
            _with_id(event, next(ids, None)) if text else event for event, text in zip(events, data, strict=True)
        )

    async def _publish(self, publications: list[Publication]) -> list[int | None]:
        """Store events in their order; gives their ids, None for one that is not as its channel says."""
        outcomes = await asyncio.gather(*[self._store(each) for each in publications], return_exceptions=True)
        ids: list[int | None] = []
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                self._failed(outcome, goes_on=outcome.reason is Reason.INVALID_PAYLOAD)
            elif isinstance(outcome, BaseException):
                raise outcome
            ids.append(outcome if isinstance(outcome, int) else None)
        return ids

    async def _store(self, publication: Publication) -> int:
        stored = await self._plane.publisher.store(
            self._call, await self._plane.publisher.admit(self._call, publication)
        )
        return stored.sequence

    def _failed(self, refused: Refused, *, goes_on: bool = False) -> None:
        """Stop publishing where a hole would follow; the caller's answer goes on."""
        if not goes_on:
            self._cutter = None
        now = time.monotonic()
        if now - _told.get(self._route, float("-inf")) >= LOG_EVERY_S:
            _told[self._route] = now
            logger.warning("route %s: an answer is not published at %s: %s", self._route, self._address, refused.detail)

    def _left(self) -> None:
        """The caller has hung up: read on for those who resume, for a while."""
        if not self._is_lost:
            self._is_lost = True
            self._lingering = asyncio.get_running_loop().call_later(self._linger_s, self._give_up)

    def _give_up(self) -> None:
        if self._abandon is not None:
            self._abandon()


def _publication(address: str, event: bytes, text: bytes) -> Publication:
    named = _EVENT_NAME.search(event)
    attributes = {"type": named[1].decode()} if named is not None else {}
    try:
        value = parse(text)
    except Refused:
        return Publication(address, text, content_type=TEXT_TYPE, attributes=attributes)
    return Publication(address, text, content_type=JSON_TYPE, attributes=attributes, value=value)


def _with_id(event: bytes, id_: int | None) -> bytes:
    """Give an event the id by which it is resumed in place of the upstream's own."""
    return event if id_ is None else b"id: %d\n%b" % (id_, _OWN_ID.sub(b"", event.removeprefix(BOM)))


def _address(value: Any) -> str:
    """Read the address. Raises BadOption."""
    if not isinstance(value, str):
        raise BadOption("channel", "Name the channel's address: a text, which may hold `{call}`.")
    try:
        subject_of(_PLACE.sub("x", value))
    except AddressError as error:
        raise BadOption("channel", f"{error}.") from None
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LINGER_MAX_S:
        raise BadOption("linger_s", f"Must be a number from 0 to {LINGER_MAX_S:g}.")
    return float(value)
