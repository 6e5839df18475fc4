"""Channels over HTTP, SSE and WebSocket: publish, history, live events, and the many-channel stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from gateway.call import Call, Reply
from gateway.channels.access import channel_for
from gateway.channels.publication import EventArray, Publication
from gateway.channels.reading import Selection, select
from gateway.handlers.events import HEADERS as STREAM_HEADERS
from gateway.handlers.events import EventStream, Position
from gateway.handlers.requests import idempotency_key, query_lists, read_body, require_no_query, whole_number
from gateway.handlers.responses import send_body, send_json
from gateway.handlers.stream.connection import StreamConnection
from gateway.log.catch_up import EARLIEST
from gateway.log.cloudevents import binary_attributes, structured
from gateway.log.event import Event
from gateway.log.event_log import Stored
from gateway.log.position import parse_position
from gateway.policies.json_body import require_plain
from gateway.refusals import Reason, Refused
from gateway.snapshot.paths import channel_events_path
from gateway.snapshot.right import Verb, interval_of
from gateway.wire.content_types import JSON, JSON_TYPE, essence_of, media_type_of
from gateway.wire.header_fields import Headers
from gateway.wire.json_array import cut_array, is_array
from gateway.wire.strict_json import fail, has_more_parts, parse, parse_at

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.plane import Plane

STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
FORM = "application/x-www-form-urlencoded"
BATCH_MAX = 1000
BATCH_PARTS_MAX = 1_000_000
"""Most values, names and brackets of all events of an array: for one event, see :mod:`gateway.wire.strict_json`."""
HISTORY_DEFAULT, HISTORY_MAX = 100, 1000
HISTORY_MAX_BYTES = 4 * 1024 * 1024
CHARGE_MAX_S = 3.0
"""Longest delay of a history request by a limit whose action is ``delay``."""
CHANNELS_MAX = 50


async def stream(plane: Plane, call: Call) -> Reply:
    """Serve ``WS /v1/stream``, and WebSocket routes to a channel."""
    require_no_query(call)
    return await StreamConnection(plane, call).serve(call.peer)


async def events(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/events?channel=A&channel=B``, and SSE routes to a channel."""
    query = query_lists(call, {"channel", "from", "last_event_id", "conflate"}, repeatable={"channel"})
    addresses = sorted({call.parameters["address"]} if "address" in call.parameters else set(query["channel"]))
    if not addresses or len(addresses) > CHANNELS_MAX:
        raise Refused(Reason.INVALID_REQUEST, f"Name 1 to {CHANNELS_MAX} channels as `?channel=`.")
    selections = [select(plane.snapshot, call, address) for address in addresses]
    conflate_s = interval_of(query["conflate"][0]) if query["conflate"] else 0.0
    if "address" not in call.parameters:
        call.target = ", ".join(addresses)
    if call.method == "HEAD":
        await call.peer.start(200, STREAM_HEADERS)
        await call.peer.send(b"", more=False)
        return Reply(status=200)
    start = _start(call, query, len(selections))
    return await EventStream(plane, call, selections, start, conflate_s=conflate_s).serve()


async def publish_events(plane: Plane, call: Call) -> Reply:
    """Serve ``POST /v1/channels/{address}/events``: one event, or a JSON array of them."""
    require_no_query(call)
    require_plain(call)
    if call.peer.expects_continue:
        # Its body is not asked for in vain.
        channel_for(plane.snapshot, call, call.parameters["address"], Verb.PUBLISH)
    body = await read_body(call)
    found = plane.snapshot.channel(call.parameters["address"])
    takes = found[0].content_type if found else JSON
    content = await plane.side_threads.run(
        call.caller.consumer, len(body), _content, plane.config, call, takes, body, 2 * plane.log.payload_max_bytes
    )
    if isinstance(content, Publication):
        answer: dict[str, Any] = {"id": str((await plane.publisher.publish(call, content)).sequence)}
        count = 1
    else:
        ids = [str(stored.sequence) for stored in await _store_all(plane, call, content)]
        answer, count = {"ids": ids}, len(ids)
    reply = await send_json(plane.limiter, call, 201, answer, bytes_in=len(body))
    reply.messages_in = count
    return reply


async def _store_all(plane: Plane, call: Call, content: EventArray | list[Publication]) -> list[Stored]:
    if isinstance(content, EventArray):
        return await plane.publisher.publish_array(call, content)
    if not content:
        channel_for(plane.snapshot, call, call.parameters["address"], Verb.PUBLISH)
    return await plane.publisher.publish_all(call, content)


async def history(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/channels/{address}/events?after=ID&limit=100``; 410 if the event after ``after`` has expired."""
    query = query_lists(call, {"after", "limit"})
    address = call.parameters["address"]
    selection = select(plane.snapshot, call, address)
    limit = whole_number("limit", query["limit"][0], HISTORY_MAX) if query["limit"] else HISTORY_DEFAULT
    after = parse_position(query["after"][0]) if query["after"] else EARLIEST
    if not isinstance(after, int):
        raise Refused(Reason.INVALID_REQUEST, "`after` must be an id.")
    batch = await plane.log.batch(
        selection.channel, selection.subject, after, limit, HISTORY_MAX_BYTES, reader=call.caller.consumer
    )
    if after != EARLIEST and not (batch.events and batch.events[0].id == after + 1):
        # Checked after the read, so that events that expired meanwhile do not leave an unreported gap.
        await _require_retained(plane, selection, after)
    now = time.time()
    readable = [event for event in batch.events if not event.has_expired(now)]
    events = await charge_read(plane, call, readable)
    next_ = None
    if batch.pending or len(events) < len(readable):
        last = batch.events[-1] if len(events) == len(readable) else events[-1]
        path = quote(call.address) if call.route is not None else channel_events_path(address)
        next_ = f"{plane.config.public_url}{path}?after={last.id}&limit={limit}"
    if BATCHED in (call.header(b"accept") or ""):
        # A CloudEvents batch is a bare array, so the next page is in a Link header (RFC 8288).
        texts = ",".join(event.cloudevent() for event in events)
        link: Headers = [(b"link", f'<{next_}>; rel="next"'.encode())] if next_ else []
        batch_body = f"[{texts}]".encode()
        return await send_body(plane.limiter, call, 200, batch_body, content_type=BATCHED.encode(), headers=link)
    results = ",".join(event.frame() for event in events)
    body = f'{{"results":[{results}],"next":{orjson.dumps(next_).decode()}}}'.encode()
    return await send_body(plane.limiter, call, 200, body)


async def _require_retained(plane: Plane, selection: Selection, after: int) -> None:
    """Raise Refused ``gone`` with the oldest retained id if the id after ``after`` has expired."""
    extent = await plane.log.extent(selection.channel)
    if after + 1 < extent.first:
        raise Refused(
            Reason.GONE,
            f"Events up to {extent.first - 1} have expired; the oldest retained event is {extent.first}.",
            members={"oldest": str(extent.first)},
        )


async def charge_read(plane: Plane, call: Call, events: list[Event]) -> list[Event]:
    """Charge events to the limits as deliveries and return as many as they allow now. Raises Refused if none."""
    if plane.limiter.charge_now(call, messages_out=len(events), bytes_out=sum(len(event.data) for event in events)):
        return events
    count = 0
    try:
        async with asyncio.timeout(CHARGE_MAX_S):
            for event in events:
                await plane.limiter.charge(call, messages_out=1, bytes_out=len(event.data))
                count += 1
    except (Refused, TimeoutError) as failure:
        if not count:
            raise failure if isinstance(failure, Refused) else Refused(Reason.RATE_LIMITED, retry_after_s=1) from None
    return events[:count]


def _content(
    config: Config, call: Call, takes: str, body: bytes, event_max_bytes: int
) -> Publication | EventArray | list[Publication]:
    """Return the event of the body, or its events, as its content type says.

    Without a content type it is what the channel takes. An event whose text is longer than ``event_max_bytes`` is not
    looked at. Raises Refused.
    """
    content_type = call.header(b"content-type") or ""
    essence = essence_of(content_type)
    if essence == STRUCTURED:
        _require_size([body], event_max_bytes)
        return _structured(config, call, body)
    if essence == BATCHED:
        events = _events(body, event_max_bytes)
        return _numbered([_structured(config, call, event, f"/{number}") for number, event in enumerate(events)])
    attributes = binary_attributes(call.headers)
    if essence == FORM and takes != FORM:  # the default of `curl -d`
        content_type = essence = ""
    if (essence or media_type_of(takes)) == JSON_TYPE and not attributes and is_array(body):
        events = _events(body, event_max_bytes)
        if not events:
            fail("An array must have at least one event.")
        values = _values(config, body, len(events))
        return EventArray(call.parameters["address"], events, values, content_type, idempotency_key(call))
    return _publication(call, body, content_type=content_type, attributes=attributes)


def _values(config: Config, body: bytes, count: int) -> list[Any] | None:
    """Parse an array as one text; None if that is refused, as one of its events then is by itself."""
    try:
        values = parse(body, depth_max=config.json_depth_max + 1, digits_max=config.number_digits_max)
    except Refused:
        return None
    return values if isinstance(values, list) and len(values) == count else None


def _events(body: bytes, event_max_bytes: int) -> list[bytes]:
    """Return the texts of the events of an array, which are not parsed yet. Raises Refused if there are too many."""
    if not is_array(body):
        fail("A CloudEvents batch must be a JSON array.")
    if has_more_parts(body, BATCH_PARTS_MAX):
        fail(f"The events of an array have at most {BATCH_PARTS_MAX} values, names and brackets.")
    events = cut_array(body, BATCH_MAX)
    _require_size(events, event_max_bytes)
    return events


def _require_size(events: list[bytes], event_max_bytes: int) -> None:
    if any(len(event) > event_max_bytes for event in events):
        raise Refused(Reason.TOO_LARGE, f"The text of an event may have at most {event_max_bytes} bytes.")


def _publication(call: Call, data: bytes, **more: Any) -> Publication:
    return Publication(
        address=call.parameters["address"],
        data=data,
        idempotency_key=idempotency_key(call),
        **more,
    )


def _numbered(publications: list[Publication]) -> list[Publication]:
    """Derive an idempotency key for each event of a batch; the first event keeps that of the batch."""
    return [
        replace(publication, idempotency_key=f"{publication.idempotency_key}\n{number}")
        if number and publication.idempotency_key
        else publication
        for number, publication in enumerate(publications)
    ]


def _structured(config: Config, call: Call, event: bytes, at: str = "") -> Publication:
    """Parse a CloudEvent, whose envelope adds a level around its data."""
    value = parse_at(event, at, depth_max=config.json_depth_max + 1, digits_max=config.number_digits_max)
    content = structured(value, at)
    return _publication(call, content.data, content_type=content.content_type, attributes=content.attributes)


def _start(call: Call, query: Mapping[str, list[str]], count: int) -> list[Position]:
    """Return the start of each channel: the last id that the client received, else ``from``, else the next event."""
    last = call.header(b"last-event-id") or next(iter(query["last_event_id"]), "")
    start = last or next(iter(query["from"]), "latest")
    if count == 1:
        return [parse_position(start)]
    if "-" in start and start.replace("-", "").isdigit():
        parts = start.split("-")
        if len(parts) != count:
            raise Refused(
                Reason.INVALID_REQUEST,
                "The id belongs to another set of channels.",
                cause="invalid-position",
            )
        return [parse_position(part) for part in parts]
    position = parse_position(start)
    if isinstance(position, int) and position != EARLIEST:
        raise Refused(
            Reason.INVALID_REQUEST,
            f"An id of a stream over {count} channels must have {count} parts.",
            cause="invalid-position",
        )
    return [position] * count
