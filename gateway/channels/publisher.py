"""Publishes events: checks, charges and stores them, or dead-letters the invalid ones."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from functools import partial

import orjson

from gateway import tracing
from gateway.call import Call
from gateway.channels.access import Places
from gateway.channels.checking import check_of, evaluations_of, require_taken, require_utf8
from gateway.channels.outcomes import Outcomes
from gateway.channels.publication import (
    UNREAD,
    Admitted,
    EventArray,
    Publication,
    attributes_as_headers,
    headers_of,
    plain_headers,
)
from gateway.config import Config
from gateway.durable.dead_letter import DETAIL_MAX_CHARS, DeadEvent, store_letter
from gateway.limiter import Limiter
from gateway.log.event_log import EventLog, Stored
from gateway.log.writer import MESSAGE_ID, Done, when_done, with_header
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Validators
from gateway.side_thread import INLINE_MAX_BYTES, SideThreads, weight_of
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.content_types import is_json, is_text
from gateway.wire.digest import digest_of
from gateway.wire.strict_json import parse

logger = logging.getLogger(__name__)

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
        self._places = Places(snapshot)
        self._comparing: set[asyncio.Task[None]] = set()

    async def publish(self, call: Call, publication: Publication) -> Stored:
        """Store one event. Raises Refused; an invalid event is dead-lettered if its channel asks for that."""
        return await self.store(call, await self.admit(call, publication))

    async def admit(self, call: Call, publication: Publication) -> Admitted:
        """Do all of :meth:`publish` but store the event, so that a connection may store many concurrently.

        Waits only while a limit delays, or for the check of a large event; the connection should then admit nothing
        else before.
        """
        admitted = await self._accept(call, publication)
        if not self._charge_now(call, 1, len(publication.data)):
            await self._charge(call, 1, len(publication.data))
        if admitted.fault is not None:
            await self._dead_letter(call, admitted, admitted.fault)
            raise admitted.fault
        return admitted

    async def store(self, call: Call, admitted: Admitted) -> Stored:
        """Store an admitted event. Events are stored in the order in which these coroutines were first run."""
        stored = await when_done(partial(self._write, call, admitted))
        if stored.duplicate:
            await self._require_same_body(admitted, stored)
        return stored

    def store_soon(self, call: Call, admitted: Admitted, done: Done) -> None:
        """Store an admitted event as :meth:`store` does, and call ``done`` with what it returns or raises.

        Events are stored in the order of these calls.
        """
        self._write(call, admitted, partial(self._written, admitted, done))

    def _write(self, call: Call, admitted: Admitted, done: Done) -> None:
        publication, headers = admitted.publication, admitted.headers
        message_id = _message_id(call, publication)
        if message_id is not None:
            headers = with_header(headers, MESSAGE_ID, message_id)
        self._log.write(
            admitted.channel, admitted.subject, publication.data, headers, done, is_repeatable=message_id is not None
        )

    def _written(self, admitted: Admitted, done: Done, outcome: Stored | Refused) -> None:
        if isinstance(outcome, Refused) or not outcome.duplicate:
            done(outcome)
            return
        comparing = asyncio.create_task(self._compare(admitted, outcome, done), name="compare a repeated publish")
        self._comparing.add(comparing)
        comparing.add_done_callback(self._comparing.discard)

    async def _compare(self, admitted: Admitted, stored: Stored, done: Done) -> None:
        outcome: Stored | Refused = stored
        try:
            await self._require_same_body(admitted, stored)
        except Refused as refused:
            outcome = refused
        except Exception:
            logger.exception("publish failed on %s", admitted.channel.address)
            outcome = Refused(Reason.INTERNAL)
        done(outcome)

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
            digest = digest_of(publication.data for publication in publications)
            stored.append(await self.store(call, all_.pop(0).of_batch(digest)))
        outcomes = Outcomes(len(all_))
        for number, admitted in enumerate(all_):
            self.store_soon(call, admitted, partial(outcomes.take, number))
            if await self._is_enough(outcomes, number, len(all_)):
                break
        return stored + await outcomes.stored()

    async def publish_array(self, call: Call, array: EventArray) -> list[Stored]:
        """Store the events of an array as :meth:`publish_all` does, in one pass if all of them are valid."""
        texts = array.texts
        headers = await self._check_array(call, array)
        if headers is None:
            return await self.publish_all(call, array.publications())
        await self._charge(call, len(texts), sum(map(len, texts)))
        channel, subject = self._places.find(call, array.address)
        outcomes = Outcomes(len(texts))
        for number, text in enumerate(texts):
            self._log.write(channel, subject, text, headers, partial(outcomes.take, number), is_repeatable=False)
            if await self._is_enough(outcomes, number, len(texts)):
                break
        return await outcomes.stored()

    async def _is_enough(self, outcomes: Outcomes, number: int, count: int) -> bool:
        """Return whether no event after this one is to be stored; between two slices, the event loop serves others."""
        if (number + 1) % SLICE_EVENTS or number + 1 == count:
            return False
        await asyncio.sleep(0)
        if outcomes.has_failed:
            outcomes.leave_out(count - number - 1)
        return outcomes.has_failed

    async def _check_array(self, call: Call, array: EventArray) -> bytes | None:
        """Return the headers of all events of an array if every one is valid and takes little time to check.

        None leaves it to the way of single events, which finds the refusal. Raises Refused where there is no channel.
        """
        channel, _ = self._places.find(call, array.address)
        content_type = array.content_type or channel.media_type
        if array.values is None or array.idempotency_key is not None or not is_json(content_type):
            return None
        largest = max(map(len, array.texts))
        try:
            require_taken(channel, content_type)
            weight = self._weight(channel, largest, content_type)
            if largest > self._log.payload_max_bytes or weight > INLINE_MAX_BYTES // SLICE_EVENTS:
                return None
            if channel.schema is not None:
                check = check_of(self._snapshot, self._validators, channel)
                for number, value in enumerate(array.values, 1):
                    check(value)
                    if not number % SLICE_EVENTS:
                        await asyncio.sleep(0)
        except Refused:
            return None
        return plain_headers(call, content_type)

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
        channel, subject = self._places.find(call, publication.address)
        weight = len(publication.data)
        if weight > self._log.payload_max_bytes:
            raise Refused(Reason.TOO_LARGE, f"An event holds at most {self._log.payload_max_bytes} bytes.")
        fault: Refused | None = None
        headers = b""
        content_type = publication.content_type or channel.media_type
        try:
            if not publication.is_relayed:
                require_taken(channel, content_type)
            weight = self._weight(channel, weight, content_type)
            if weight <= INLINE_MAX_BYTES:
                self._validate(channel, publication, content_type)
            else:
                await self._side_threads.run(
                    call.caller.consumer, weight, self._validate, channel, publication, content_type
                )
            headers = headers_of(call, publication, content_type)
        except Refused as refused:
            fault = refused
        return Admitted(publication, channel, subject, headers, fault, content_type, weight)

    def _weight(self, channel: Channel, size: int, content_type: str) -> int:
        if channel.schema is None or not is_json(content_type):
            return size
        return weight_of(size, evaluations_of(self._snapshot, self._validators, channel))

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
        if channel.schema is not None:
            check_of(self._snapshot, self._validators, channel)(value)

    def _charge_now(self, call: Call, messages: int, bytes_: int) -> bool:
        """Charge the limits without waiting. The body of an HTTP request was already charged as it was read."""
        bytes_in = 0 if call.protocol is Protocol.HTTP else bytes_
        return self._limiter.charge_now(call, messages_in=messages, bytes_in=bytes_in)

    async def _charge(self, call: Call, messages: int, bytes_: int) -> None:
        """Charge the limits, waiting as they delay."""
        if not self._charge_now(call, messages, bytes_):
            bytes_in = 0 if call.protocol is Protocol.HTTP else bytes_
            await self._limiter.charge(call, messages_in=messages, bytes_in=bytes_in)

    async def _require_same_body(self, admitted: Admitted, stored: Stored) -> None:
        first = await self._log.event(admitted.channel, stored.sequence)
        body = (admitted.publication.data, admitted.batch)
        if first is not None and (first.data, first.batch) != body:
            raise Refused(
                Reason.INVALID_PAYLOAD,
                "This idempotency key, or id of an event, was used with another body.",
                cause="idempotency-key-reused",
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
