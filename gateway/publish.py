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

from gateway.authenticate import require
from gateway.call import Call, Protocol, Right, Verb
from gateway.event import EVENT_TYPE, JSON_TYPE, encoded, is_json, rfc3339
from gateway.log import Stored
from gateway.nats_link import DEAD_SUBJECT
from gateway.refusals import Reason, Refused
from gateway.snapshot import Channel
from gateway.subjects import AddressError, subject_of
from gateway.validation import Validators, fail, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

IDEMPOTENCY_KEY_MAX_CHARS = 255
DETAIL_MAX_CHARS = 500
UNREAD: Any = object()
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,20}")
_CONSUMERS = "/consumers/"
_validators = Validators()


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
    value: Any = UNREAD
    """What ``data`` says, where it was already read by :func:`gateway.validation.parse`."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A publication that may be published, once limits agree; or its fault."""

    publication: Publication
    channel: Channel
    subject: str
    headers: dict[str, str]
    fault: Refused | None


async def publish(plane: Plane, call: Call, publication: Publication) -> Stored:
    """Store one event. Raises Refused; an invalid event is kept in the dead letters where its channel says so."""
    accepted = _accept(plane, call, publication)
    if not _charged_now(plane, call, 1, len(publication.data)):
        await plane.limiter.charge(call, messages_in=1, bytes_in=_bytes_in(call, len(publication.data)))
    if accepted.fault is not None:
        await _bury(plane, call, accepted, accepted.fault)
        raise accepted.fault
    return await _store(plane, call, accepted)


async def publish_all(plane: Plane, call: Call, publications: Sequence[Publication]) -> list[Stored]:
    """Store several events in their order. Nothing is stored where one of them is refused beforehand.

    Where the log fails on the way, some may be kept: with an idempotency key a repeat stores only the others.
    """
    all_ = [_accept(plane, call, publication) for publication in publications]
    bytes_ = sum(len(publication.data) for publication in publications)
    if not _charged_now(plane, call, len(all_), bytes_):
        await plane.limiter.charge(call, messages_in=len(all_), bytes_in=_bytes_in(call, bytes_))
    for number, accepted in enumerate(all_):
        if accepted.fault is not None:
            await _bury(plane, call, accepted, accepted.fault)
            at = f"/{number}{accepted.fault.members.get('pointer', '')}"
            raise Refused(accepted.fault.reason, accepted.fault.detail, members={"pointer": at})
    outcomes = await asyncio.gather(*(_store(plane, call, accepted) for accepted in all_), return_exceptions=True)
    stored = []
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
        require(call.who, Right(verb, address))
    try:
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
    if channel.protocols and call.protocol.value not in channel.protocols:
        raise Refused(Reason.FORBIDDEN, f"The channel is not open to {call.protocol.value}.", cause="closed-door")


def is_routed_to(call: Call, address: str) -> bool:
    """Say whether the call came by a route whose handler is that channel: the right to the route is enough."""
    return call.route is not None and call.route.handler.get("channel") == address


def _accept(plane: Plane, call: Call, publication: Publication) -> _Accepted:
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
    return _Accepted(publication, channel, subject, headers, fault)


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
    _validators.check(channel.schema, value)


def _headers(call: Call, publication: Publication) -> dict[str, str]:
    """Write the CloudEvents attributes as NATS headers (NATS protocol binding 3.1)."""
    own_source = _CONSUMERS + call.who.consumer
    attributes = publication.attributes
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name) or not value:
            fail(f"The attribute {name[:40]!r} is not one of CloudEvents.", f"/{name[:40]}")
    source = attributes.get("source") or own_source
    if source.startswith(_CONSUMERS) and source != own_source:
        fail("The source names another consumer.", "/source")
    headers = {f"ce-{name}": encoded(value) for name, value in attributes.items()}
    headers["ce-specversion"] = "1.0"
    headers["ce-source"] = encoded(source)
    headers["ce-type"] = encoded(attributes.get("type") or EVENT_TYPE)
    headers["ce-time"] = _time(attributes.get("time"))
    headers["content-type"] = encoded(publication.content_type)
    traceparent = publication.traceparent or attributes.get("traceparent") or call.traceparent
    headers.pop("ce-traceparent", None)
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        headers["traceparent"] = traceparent
    return headers


def _time(given: str | None) -> str:
    if given is None:
        return rfc3339(datetime.now(UTC))
    try:
        instant = datetime.fromisoformat(given)
    except ValueError:
        fail("`time` is not an RFC 3339 instant.", "/time")
    if instant.tzinfo is None:
        fail("`time` says no offset from UTC.", "/time")
    return given


def _bytes_in(call: Call, bytes_: int) -> int:
    """The body of an HTTP request was charged as it was read."""
    return 0 if call.protocol is Protocol.HTTP else bytes_


def _charged_now(plane: Plane, call: Call, messages: int, bytes_: int) -> bool:
    return plane.limiter.charge_now(call, messages_in=messages, bytes_in=_bytes_in(call, bytes_))


async def _store(plane: Plane, call: Call, accepted: _Accepted) -> Stored:
    publication = accepted.publication
    message_id = _message_id(call, publication)
    stored = await plane.log.publish(
        accepted.channel, accepted.subject, publication.data, accepted.headers, message_id=message_id
    )
    if stored.duplicate:
        await _require_same_body(plane, accepted, stored)
    return stored


def _message_id(call: Call, publication: Publication) -> str | None:
    """Make the stream's message id: the raw key of somebody else, or on another address, is another one."""
    key = publication.idempotency_key
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_MAX_CHARS:
        raise Refused(Reason.INVALID_REQUEST, f"An idempotency key has 1 to {IDEMPOTENCY_KEY_MAX_CHARS} characters.")
    whole = orjson.dumps([call.who.consumer, publication.address, key])
    return hashlib.sha256(whole).hexdigest()


async def _require_same_body(plane: Plane, accepted: _Accepted, stored: Stored) -> None:
    first = await plane.log.event(accepted.channel, stored.sequence)
    if first is not None and first.data != accepted.publication.data:
        raise Refused(
            Reason.INVALID_PAYLOAD,
            "This idempotency key was used with another body.",
            cause="idempotency-key-reused",
            members={"pointer": ""},
        )


async def _bury(plane: Plane, call: Call, accepted: _Accepted, fault: Refused) -> None:
    """Keep an invalid event with its fault, where its channel says so."""
    if accepted.channel.on_invalid != "dead-letter":
        return
    publication = accepted.publication
    letter = {
        "channel": accepted.channel.address,
        "address": publication.address,
        "reason": fault.reason.value,
        "detail": fault.detail[:DETAIL_MAX_CHARS],
        "pointer": fault.members.get("pointer", ""),
        "consumer": call.who.consumer,
        "protocol": call.protocol.value,
        "attempts": 1,
        "event": _as_json(publication.data),
        "dead_at": rfc3339(datetime.now(UTC)),
    }
    await plane.log.store(f"{DEAD_SUBJECT}.{accepted.channel.stream}", orjson.dumps(letter))


def _as_json(data: bytes) -> dict[str, Any]:
    try:
        parse(data)
    except Refused:
        return {"data_base64": base64.b64encode(data).decode()}
    return {"data": orjson.Fragment(data)}
