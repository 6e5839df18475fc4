"""The one way an event gets in, whatever the door: right, channel, size, validation, limits, then the log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from gateway import tracing
from gateway.authenticate import require
from gateway.call import Call
from gateway.channels.checking import check_event
from gateway.link.nats import DEAD_SUBJECT
from gateway.log.event import BATCH_HEADER, EVENT_TYPE, JSON_TYPE, encoded, is_json, rfc3339
from gateway.log.event_log import Stored
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.right import Right, Verb
from gateway.wire.strict_json import fail, parse
from gateway.wire.subjects import AddressError, subject_of

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

ATTRIBUTES_MAX = 32
ATTRIBUTES_MAX_BYTES = 4096
CONTENT_TYPE_MAX_CHARS = 200
DETAIL_MAX_CHARS = 500
UNREAD: Any = object()
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONSUMERS = "/consumers/"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
"""Python reads weeks, days without dashes and more as instants; readers of events do not."""


@dataclass(frozen=True, slots=True)
class Publication:
    """An event that somebody wants to publish."""

    address: str
    data: bytes
    content_type: str = JSON_TYPE
    idempotency_key: str | None = None
    traceparent: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """CloudEvents attributes that the publisher gave, without prefix: ``id``, ``type``, ``source``, ``subject``, …"""
    keeps_invalid: bool = False
    """Keep it in the dead letters where it is invalid, whatever its channel says: its publisher cannot be told."""
    value: Any = UNREAD
    """What ``data`` says, where it was already read by :func:`gateway.wire.strict_json.parse`."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A publication whose right, channel and payload were looked at, and the fault that was found."""

    publication: Publication
    channel: Channel
    subject: str
    headers: dict[str, str]
    fault: Refused | None


async def publish(plane: Plane, call: Call, publication: Publication) -> Stored:
    """Store one event. Raises Refused; an invalid event is kept in the dead letters where its channel says so."""
    return await store(plane, call, await admit(plane, call, publication))


async def admit(plane: Plane, call: Call, publication: Publication) -> Admitted:
    """Do all of :func:`publish` but store the event, so that a connection may have many on their way to the log.

    Waits only where a limit delays; then nothing that comes after on the connection should be admitted before.
    """
    admitted = _accept(plane, call, publication)
    await _charge(plane, call, 1, len(publication.data))
    if admitted.fault is not None:
        await _bury(plane, call, admitted, admitted.fault)
        raise admitted.fault
    return admitted


async def store(plane: Plane, call: Call, admitted: Admitted) -> Stored:
    """Store what was admitted; events are stored in the order in which this was first run."""
    publication = admitted.publication
    stored = await plane.log.publish(
        admitted.channel,
        admitted.subject,
        publication.data,
        admitted.headers,
        message_id=_message_id(call, publication),
    )
    if stored.duplicate:
        await _require_same_body(plane, admitted, stored)
    return stored


async def publish_all(plane: Plane, call: Call, publications: Sequence[Publication]) -> list[Stored]:
    """Store several events in their order. Nothing is stored where one of them is refused beforehand.

    Where the log fails on the way, some may be kept: with an idempotency key a repeat stores only the others.
    """
    all_ = [_accept(plane, call, publication) for publication in publications]
    is_keyed = publications[0].idempotency_key is not None
    await _charge(plane, call, len(all_), sum(len(publication.data) for publication in publications))
    for number, admitted in enumerate(all_):
        if admitted.fault is not None:
            await _bury(plane, call, admitted, admitted.fault)
            at = f"/{number}{admitted.fault.members.get('pointer', '')}"
            raise Refused(admitted.fault.reason, admitted.fault.detail, members={"pointer": at})
    stored = []
    if is_keyed:
        # The first event stands for the key and knows the whole body: nothing is stored beside it for another body.
        all_[0].headers[BATCH_HEADER] = _digest(publications)
        stored.append(await store(plane, call, all_.pop(0)))
    outcomes = await asyncio.gather(*(store(plane, call, admitted) for admitted in all_), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        stored.append(outcome)
    return stored


def channel_for(plane: Plane, call: Call, address: str, verb: Verb) -> tuple[Channel, str]:
    """Give the channel of a concrete address and the address's subject, where the call may do this there.

    Raises Refused ``forbidden``, ``not-found`` or ``invalid-request``; a right is looked at first, so that a stranger
    does not learn which channels there are.
    """
    if not is_routed_to(call, address):
        require(call.caller, Right(verb, address))
    try:
        if "{" in address:
            raise AddressError("the parameters of an address are filled in before it is used")
        subject = subject_of(address)
    except AddressError as error:
        raise Refused(Reason.INVALID_REQUEST, f"{error}.", cause="invalid-address") from None
    found = plane.snapshot.channel(address)
    if found is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {address}.", cause="unknown-channel")
    require_door(found[0], call)
    return found[0], subject


def require_door(channel: Channel, call: Call) -> None:
    """Raise Refused ``forbidden`` where the channel is not open to the call's protocol."""
    if channel.protocols and call.protocol.value not in channel.protocols and call.protocol is not Protocol.CONNECTOR:
        raise Refused(Reason.FORBIDDEN, f"The channel is not open to {call.protocol.value}.", cause="closed-door")


def is_routed_to(call: Call, address: str) -> bool:
    """Say whether the call came by a route whose handler is that channel: the right to the route is enough."""
    return call.route is not None and call.route.handler.get("channel") == address


def _accept(plane: Plane, call: Call, publication: Publication) -> Admitted:
    channel, subject = channel_for(plane, call, publication.address, Verb.PUBLISH)
    if len(publication.data) > plane.log.payload_max_bytes:
        raise Refused(Reason.TOO_LARGE, f"An event holds at most {plane.log.payload_max_bytes} bytes.")
    fault: Refused | None = None
    headers: dict[str, str] = {}
    try:
        _validate(plane, channel, publication)
        headers = _headers(call, publication)
    except Refused as refused:
        fault = refused
    return Admitted(publication, channel, subject, headers, fault)


def _validate(plane: Plane, channel: Channel, publication: Publication) -> None:
    if not is_json(publication.content_type):
        if channel.schema is not None:
            fail("The channel takes JSON alone.")
        return
    value = publication.value
    if value is UNREAD:
        value = parse(
            publication.data, depth_max=plane.config.json_depth_max, digits_max=plane.config.number_digits_max
        )
    check_event(plane.snapshot, plane.validators, channel, value)


def _headers(call: Call, publication: Publication) -> dict[str, str]:
    """Write the CloudEvents attributes as NATS headers (NATS protocol binding 3.1)."""
    own_source = _CONSUMERS + call.caller.consumer
    attributes = publication.attributes
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name) or not value:
            fail(f"The attribute {name[:40]!r} is not one of CloudEvents.", f"/{name[:40]}")
        if _CONTROL.search(value):
            fail("An attribute of a CloudEvent holds no control characters.", f"/{name}")
    source = attributes.get("source") or own_source
    if source.startswith(_CONSUMERS) and source != own_source and call.protocol is not Protocol.CONNECTOR:
        fail("The source names another consumer.", "/source")
    headers = {f"ce-{name}": encoded(value) for name, value in attributes.items()}
    if sum(map(len, headers.values())) > ATTRIBUTES_MAX_BYTES or len(headers) > ATTRIBUTES_MAX:
        fail(f"CloudEvents attributes hold at most {ATTRIBUTES_MAX_BYTES} bytes.")
    headers["ce-specversion"] = "1.0"
    headers["ce-source"] = encoded(source)
    headers["ce-type"] = encoded(attributes.get("type") or EVENT_TYPE)
    headers["ce-time"] = _time(attributes.get("time"))
    headers["content-type"] = encoded(publication.content_type[:CONTENT_TYPE_MAX_CHARS])
    given = publication.traceparent or attributes.get("traceparent")
    if given or call.traceparent:
        _trace(headers, *tracing.of_event(call, given, attributes.get("tracestate")))
    return headers


def _trace(headers: dict[str, str], traceparent: str | None, tracestate: str | None) -> None:
    """Say the context once: the attributes of the CloudEvents extension stand for it too."""
    headers.pop("ce-traceparent", None)
    headers.pop("ce-tracestate", None)
    if traceparent:
        headers["traceparent"] = traceparent
    if tracestate:
        headers["ce-tracestate"] = encoded(tracestate)


def _time(given: str | None) -> str:
    if given is None:
        return rfc3339(datetime.now(UTC))
    try:
        datetime.fromisoformat(given)
    except ValueError:
        fail("`time` is not an RFC 3339 instant.", "/time")
    if not _RFC_3339.fullmatch(given):
        fail("`time` is not an RFC 3339 instant with its offset from UTC.", "/time")
    return given


async def _charge(plane: Plane, call: Call, messages: int, bytes_: int) -> None:
    """Charge the limits. The body of an HTTP request was charged as it was read."""
    bytes_in = 0 if call.protocol is Protocol.HTTP else bytes_
    if not plane.limiter.charge_now(call, messages_in=messages, bytes_in=bytes_in):
        await plane.limiter.charge(call, messages_in=messages, bytes_in=bytes_in)


def _message_id(call: Call, publication: Publication) -> str | None:
    """Make the stream's message id: the raw key of somebody else, or on another address, is another one.

    A CloudEvent is known again by its source and id (CloudEvents 1.0.2, 3.1.1), where no key was given.
    """
    known_by = [publication.idempotency_key]
    if known_by == [None]:
        given_id = publication.attributes.get("id")
        if given_id is None:
            return None
        known_by = [publication.attributes.get("source"), given_id]
    whole = orjson.dumps([call.caller.consumer, publication.address, *known_by])
    return hashlib.sha256(whole).hexdigest()


def _digest(publications: Sequence[Publication]) -> str:
    """Tell a body of several events from others: by the length and the bytes of each."""
    digest = hashlib.sha256()
    for publication in publications:
        digest.update(b"%d:%b" % (len(publication.data), publication.data))
    return digest.hexdigest()


async def _require_same_body(plane: Plane, admitted: Admitted, stored: Stored) -> None:
    first = await plane.log.event(admitted.channel, stored.sequence)
    body = (admitted.publication.data, admitted.headers.get(BATCH_HEADER))
    if first is not None and (first.data, first.batch) != body:
        raise Refused(
            Reason.INVALID_PAYLOAD,
            "This idempotency key, or id of an event, was used with another body.",
            cause="idempotency-key-reused",
            members={"pointer": ""},
        )


async def _bury(plane: Plane, call: Call, admitted: Admitted, fault: Refused) -> None:
    """Keep an invalid event with its fault, where its channel says so or its publisher cannot be told."""
    if admitted.channel.on_invalid != "dead-letter" and not admitted.publication.keeps_invalid:
        return
    publication = admitted.publication
    traced, _ = tracing.of_event(call, publication.traceparent or publication.attributes.get("traceparent"), None)
    letter = {
        "channel": admitted.channel.address,
        "address": publication.address,
        "reason": fault.reason.value,
        "detail": fault.detail[:DETAIL_MAX_CHARS],
        "pointer": fault.members.get("pointer", ""),
        "consumer": call.caller.consumer,
        "protocol": call.protocol.value,
        "attempts": 1,
        "event": as_json(publication.data) | ({"traceparent": traced} if traced else {}),
        "dead_at": rfc3339(datetime.now(UTC)),
    }
    await plane.log.store(f"{DEAD_SUBJECT}.{admitted.channel.stream}", orjson.dumps(letter))


def as_json(data: bytes) -> dict[str, Any]:
    """Give an event's payload as a dead letter holds it: ``data``, or ``data_base64`` where it is not JSON."""
    try:
        parse(data)
    except Refused:
        return {"data_base64": base64.b64encode(data).decode()}
    return {"data": orjson.Fragment(data)}
