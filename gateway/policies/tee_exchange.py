"""An exchange that publishes the events of an answer before it sends them, under the ids that they get there."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from gateway.call import Call
from gateway.channels.publication import Admitted, Publication
from gateway.concurrency.log_throttle import LogThrottle
from gateway.log.event_log import Stored
from gateway.peer import ClientGone
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal
from gateway.wire.content_types import JSON_TYPE
from gateway.wire.event_stream import BOM, EventCutter, data_of, is_event_stream
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.peer import Exchange
    from gateway.policies.policy import Dependencies

logger = logging.getLogger(__name__)

END_TYPE = "tee.end"
"""The type of the event that ends a stream: a watching client sees no connection close."""
TEXT_TYPE = "text/plain; charset=utf-8"
_EVENT_NAME = re.compile(rb"(?m)^event: ?([!-~]{1,100})\r?$")
_ID_LINE = re.compile(rb"(?m)^id(?::[^\r\n]*)?(?:\r\n|\n|\r)")


class TeeChannel:
    """Where the answers of one route are published, and the log of what could not be."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._snapshot = dependencies.snapshot
        self._log = dependencies.log
        self._publisher = dependencies.publisher
        self._side_threads = dependencies.side_threads
        self._public_url = dependencies.config.public_url
        self._throttle = LogThrottle()

    async def last_position(self, address: str) -> str:
        """Return the position after which a new stream at this address begins. Raises Refused."""
        match = self._snapshot.channel(address)
        if match is None:
            raise Refused(Reason.NOT_FOUND, f"There is no channel at {address}.")
        last = await self._log.last(match[0])
        return str(last) if last else "earliest"

    def events_url(self, address: str, position: str) -> str:
        """Return the URL at which the stream can be resumed from a position."""
        return f"{self._public_url}/v1/events?channel={quote(address, safe='')}&from={position}"

    async def publication(self, call: Call, address: str, event: bytes, text: bytes) -> Publication:
        """Return an event with this data as a publication."""
        run, consumer = self._side_threads.run, call.caller.consumer
        return await run(consumer, len(text), _publication, address, event, text)

    async def publish(self, call: Call, publications: list[Publication]) -> list[int | BaseException]:
        """Store events in their order; return the id of each, or the exception that it raised."""
        admitted = [await self._admitted(call, publication) for publication in publications]
        storing = [self._publisher.store(call, one) for one in admitted if isinstance(one, Admitted)]
        outcomes = iter(await asyncio.gather(*storing, return_exceptions=True))
        stored = [next(outcomes) if isinstance(one, Admitted) else one for one in admitted]
        return [one.sequence if isinstance(one, Stored) else one for one in stored]

    async def _admitted(self, call: Call, publication: Publication) -> Admitted | BaseException:
        try:
            return await self._publisher.admit(call, publication)
        except Exception as failure:
            return failure

    def report(self, route: str, address: str, refused: Refused) -> None:
        """Log that an answer is not published: once a minute for each route."""
        suffix = self._throttle.suffix(route)
        if suffix is not None:
            text = "route %s: an answer is not published at %s: %s%s"
            logger.warning(text, route, address, refused.detail, suffix)


class TeeExchange:
    """Implements :class:`gateway.peer.Exchange` over another: events are published, then sent with their ids."""

    can_write_now = False

    def __init__(self, call: Call, exchange: Exchange, channel: TeeChannel, address: str, linger_s: float) -> None:
        self._exchange = exchange
        self._channel = channel
        self._route = call.target
        self._address = address
        self._linger_s = linger_s
        self._call = replace(
            call,
            protocol=Protocol.CONNECTOR,
            peer=None,
            budget=None,
            # The operator configured the publishing: the caller needs no right for it and is not charged for it.
            principal=Principal(call.caller.consumer, call.caller.key, call.caller.tier, scopes=("publish:*",)),
        )
        self._cutter: EventCutter | None = None
        """None where nothing is published: the answer is not a stream of events, or publishing has failed."""
        self._abandon: Callable[[], None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._is_disconnected = False
        self._is_complete = False

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the wrapped exchange."""
        return getattr(self._exchange, name)

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the caller has disconnected; of a published stream, only after ``linger_s``."""
        self._abandon = gone
        if self._cutter is None:
            self._exchange.watch(gone)

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head; that of a stream links to where it can be resumed."""
        if 200 <= status < 300 and is_event_stream(headers) and (position := await self._begin()) is not None:
            self._exchange.watch(self._disconnected)
            url = self._channel.events_url(self._address, position)
            headers = [header for header in headers if header[0] != b"content-length"]
            headers += [(b"link", f'<{url}>; rel="monitor"; type="text/event-stream"'.encode())]
        await self._exchange.start(status, headers)

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Publish the events that are complete, then send them. Raises ClientGone unless the stream lingers."""
        if self._cutter is not None:
            body = await self._published(self._cutter, body, more=more)
        self._is_complete = not more
        if self._is_disconnected and self._cutter is not None:
            return
        try:
            await self._exchange.send(body, more=more)
        except ClientGone:
            if self._cutter is None or not self._linger_s:
                raise
            self._disconnected()

    async def finish(self) -> None:
        """Publish the event that ends the stream, whether the upstream completed it or not."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._cutter is not None:
            end = orjson.dumps({"type": END_TYPE, "complete": self._is_complete})
            await self._publish([Publication(self._address, end, attributes={"type": END_TYPE})])
            self._cutter = None

    async def _begin(self) -> str | None:
        """Return the position after which the stream begins; None where it cannot be published."""
        try:
            position = await self._channel.last_position(self._address)
        except Refused as refused:
            self._failed(refused)
            return None
        self._cutter = EventCutter()
        return position

    async def _published(self, cutter: EventCutter, body: bytes, *, more: bool) -> bytes:
        """Publish the events that are complete with this part of the body; return them with their ids."""
        events = cutter.cut(body)
        if not more and (rest := cutter.rest()):
            events.append(rest)
        if not cutter.is_between and more:
            self._failed(Refused(Reason.TOO_LARGE, "An event is too large to be published."))
            return b"".join([*events, cutter.rest()])
        data = [data_of(event) for event in events]
        pairs = list(zip(events, data, strict=True))
        new = self._channel.publication
        publications = [await new(self._call, self._address, event, text) for event, text in pairs if text]
        ids = iter(await self._publish(publications))
        return b"".join(_with_id(event, next(ids, None)) if text else event for event, text in pairs)

    async def _publish(self, publications: list[Publication]) -> list[int | None]:
        """Publish events in their order; return their ids, None for each that could not be published."""
        outcomes = await self._channel.publish(self._call, publications)
        ids: list[int | None] = []
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                self._failed(outcome, continues=outcome.reason is Reason.INVALID_PAYLOAD)
            elif isinstance(outcome, BaseException):
                raise outcome
            ids.append(outcome if isinstance(outcome, int) else None)
        return ids

    def _failed(self, refused: Refused, *, continues: bool = False) -> None:
        """Report the failure, and stop publishing unless it leaves no hole; the answer is sent all the same."""
        if not continues:
            self._cutter = None
        self._channel.report(self._route, self._address, refused)

    def _disconnected(self) -> None:
        """Keep reading the upstream for clients that resume, for ``linger_s``."""
        if not self._is_disconnected:
            self._is_disconnected = True
            self._lingering = asyncio.get_running_loop().call_later(self._linger_s, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self._abandon is not None:
            self._abandon()


def _publication(address: str, event: bytes, text: bytes) -> Publication:
    name = _EVENT_NAME.search(event)
    attributes = {"type": name[1].decode()} if name is not None else {}
    try:
        value = parse(text)
    except Refused:
        return Publication(address, text, content_type=TEXT_TYPE, attributes=attributes, is_relayed=True)
    return Publication(address, text, content_type=JSON_TYPE, attributes=attributes, is_relayed=True, value=value)


def _with_id(event: bytes, id_: int | None) -> bytes:
    """Replace the upstream's id of an event by the one under which it was published."""
    return event if id_ is None else b"id: %d\n%b" % (id_, _ID_LINE.sub(b"", event.removeprefix(BOM)))
