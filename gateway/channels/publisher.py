"""Publishes events: checks, charges and stores them, or dead-letters the invalid ones."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence

import orjson

from gateway import tracing
from gateway.call import Call
from gateway.channels.access import channel_for
from gateway.channels.checking import check_event, evaluations_of, require_taken, require_utf8
from gateway.channels.publication import UNREAD, Admitted, Publication, attributes_as_headers
from gateway.config import Config
from gateway.durable.dead_letter import DETAIL_MAX_CHARS, DeadEvent, store_letter
from gateway.limiter import Limiter
from gateway.log.event import BATCH_HEADER
from gateway.log.event_log import EventLog, Stored
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Validators
from gateway.side_thread import INLINE_MAX_BYTES, SideThreads, weight_of
from gateway.snapshot.picture import Channel, Snapshot
from gateway.snapshot.right import Verb
from gateway.wire.content_types import is_json, is_text
from gateway.wire.digest import digest_of
from gateway.wire.strict_json import parse

logger = logging.getLogger(__name__)

KEY_REUSED = "idempotency-key-reused"
SLICE_EVENTS = 50
"""So many events of an array are checked or stored before the event loop serves others."""


class Publisher:
    """The one way an event gets in, by every protocol: right, channel, size, validation, limits, then the log."""

    def __init__(
        self,
        config: Config,
        snapshot: Snapshot,
        limiter: Limiter,
        validators: Validators,
        log: EventLog,
        side_threads: SideThreads,
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._limiter = limiter
        self._validators = validators
        self._log = log
        self._side_threads = side_threads

    async def publish(self, call: Call, publication: Publication) -> Stored:
        """Store one event. Raises Refused; an invalid event is dead-lettered if its channel asks for that."""
        return await self.store(call, await self.admit(call, publication))

    async def admit(self, call: Call, publication: Publication) -> Admitted:
        """Do all of :meth:`publish` but store the event, so that a connection may store many concurrently.

        Waits only while a limit delays, or for the check of a large event; the connection should then admit nothing
        else before.
        """
        admitted = await self._accept(call, publication)
        await self._charge(call, 1, len(publication.data))
        if admitted.fault is not None:
            await self._dead_letter(call, admitted, admitted.fault)
            raise admitted.fault
        return admitted

    async def store(self, call: Call, admitted: Admitted) -> Stored:
        """Store an admitted event. Events are stored in the order in which these coroutines were first run."""
        publication = admitted.publication
        stored = await self._log.publish(
            admitted.channel,
            admitted.subject,
            publication.data,
            admitted.headers,
            message_id=_message_id(call, publication),
        )
        if stored.duplicate:
            await self._require_same_body(admitted, stored)
        return stored

    async def publish_all(self, call: Call, publications: Sequence[Publication]) -> list[Stored]:
        """Store several events in order, or none if one of them is refused.

        If the log fails midway some may be stored; with an idempotency key, a retry stores only the others.
        """
        if not publications:
            return []
        all_ = await self._accept_all(call, publications)
        is_keyed = publications[0].idempotency_key is not None
        await self._charge(call, len(all_), sum(len(publication.data) for publication in publications))
        for number, admitted in enumerate(all_):
            if admitted.fault is not None:
                await self._dead_letter(call, admitted, admitted.fault)
                at = f"/{number}{admitted.fault.members.get('pointer', '')}"
                raise _placed(admitted.fault, at)
        stored = []
        if is_keyed:
            # The first event carries the key and a digest of the whole body: another body with that key stores nothing.
            all_[0].headers[BATCH_HEADER] = digest_of(publication.data for publication in publications)
            stored.append(await self.store(call, all_.pop(0)))
        while all_:
            part, all_ = all_[:SLICE_EVENTS], all_[SLICE_EVENTS:]
            outcomes = await asyncio.gather(*(self.store(call, admitted) for admitted in part), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                stored.append(outcome)
        return stored

    async def _accept_all(self, call: Call, publications: Sequence[Publication]) -> list[Admitted]:
        """Accept several events, a slice at a time: between two, the event loop serves others."""
        all_: list[Admitted] = []
        events = weight = 0
        for publication in publications:
            all_.append(await self._accept(call, publication))
            events, weight = events + 1, weight + all_[-1].weight
            if events >= SLICE_EVENTS or weight >= INLINE_MAX_BYTES:
                await asyncio.sleep(0)
                events = weight = 0
        return all_

    async def _accept(self, call: Call, publication: Publication) -> Admitted:
        channel, subject = channel_for(self._snapshot, call, publication.address, Verb.PUBLISH)
        if len(publication.data) > self._log.payload_max_bytes:
            raise Refused(Reason.TOO_LARGE, f"An event holds at most {self._log.payload_max_bytes} bytes.")
        fault: Refused | None = None
        weight = len(publication.data)
        headers: dict[str, str] = {}
        content_type = publication.content_type or channel.media_type
        try:
            if not publication.is_relayed:
                require_taken(channel, content_type)
            weight = self._weight(channel, publication, content_type)
            await self._side_threads.run(
                call.caller.consumer, weight, self._validate, channel, publication, content_type
            )
            headers = attributes_as_headers(call, publication, content_type)
        except Refused as refused:
            fault = refused
        return Admitted(publication, channel, subject, headers, fault, content_type, weight)

    def _weight(self, channel: Channel, publication: Publication, content_type: str) -> int:
        if channel.schema is None or not is_json(content_type):
            return len(publication.data)
        return weight_of(len(publication.data), evaluations_of(self._snapshot, self._validators, channel))

    def _validate(self, channel: Channel, publication: Publication, content_type: str) -> None:
        if not is_json(content_type):
            if is_text(channel.media_type):
                require_utf8(publication.data)
            return
        value = publication.value
        if value is UNREAD:
            value = parse(
                publication.data, depth_max=self._config.json_depth_max, digits_max=self._config.number_digits_max
            )
        check_event(self._snapshot, self._validators, channel, value)

    async def _charge(self, call: Call, messages: int, bytes_: int) -> None:
        """Charge the limits. The body of an HTTP request was already charged as it was read."""
        bytes_in = 0 if call.protocol is Protocol.HTTP else bytes_
        if not self._limiter.charge_now(call, messages_in=messages, bytes_in=bytes_in):
            await self._limiter.charge(call, messages_in=messages, bytes_in=bytes_in)

    async def _require_same_body(self, admitted: Admitted, stored: Stored) -> None:
        first = await self._log.event(admitted.channel, stored.sequence)
        body = (admitted.publication.data, admitted.headers.get(BATCH_HEADER))
        if first is not None and (first.data, first.batch) != body:
            raise Refused(
                Reason.INVALID_PAYLOAD,
                "This idempotency key, or id of an event, was used with another body.",
                cause=KEY_REUSED,
                members={"pointer": ""},
            )

    async def _dead_letter(self, call: Call, admitted: Admitted, fault: Refused) -> None:
        """Dead-letter an invalid event if its channel asks for that, or if its publisher cannot be notified."""
        if admitted.channel.on_invalid != "dead-letter" and not admitted.publication.keeps_invalid:
            return
        publication = admitted.publication
        letter = {
            "address": publication.address,
            "reason": fault.reason.value,
            "detail": fault.detail[:DETAIL_MAX_CHARS],
            "pointer": fault.members.get("pointer", ""),
            "consumer": call.caller.consumer,
            "protocol": call.protocol.value,
            "attempts": 1,
        }
        await store_letter(self._log, admitted.channel, letter, _dead_event(call, admitted))


def _message_id(call: Call, publication: Publication) -> str | None:
    """Return the stream's message id, a hash of consumer, address and key; None if the event cannot be recognised."""
    known_by = publication.known_by
    if known_by is None:
        return None
    whole = orjson.dumps([call.caller.consumer, publication.address, *known_by])
    return hashlib.sha256(whole).hexdigest()


def _placed(fault: Refused, at: str) -> Refused:
    """Return the refusal of an event as the refusal of the batch that holds it, at a JSON Pointer."""
    return Refused(
        fault.reason,
        fault.detail,
        status=fault.status,
        cause=fault.cause,
        headers=fault.headers,
        members={"pointer": at},
    )


def _dead_event(call: Call, admitted: Admitted) -> DeadEvent:
    """Return a refused event, with its attributes unless they are what is wrong."""
    publication = admitted.publication
    traced, _ = tracing.of_event(call, publication.traceparent or publication.attributes.get("traceparent"), None)
    attributes = publication.attributes
    try:
        attributes_as_headers(call, publication, admitted.content_type)
    except Refused:
        attributes = {}
    return DeadEvent.refused(publication.data, admitted.content_type, attributes, traced)
