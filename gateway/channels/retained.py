"""Retained events of MQTT: of each address the one that a new subscriber is given at once.

The event itself lies in its channel's log and goes as that says; kept here is its id alone, one an address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from gateway.link.nats import RETAINED_STREAM, RETAINED_SUBJECT, read_batch
from gateway.log.event import Event
from gateway.refusals import Reason, Refused
from gateway.wire.subjects import address_of

if TYPE_CHECKING:
    from gateway.plane import Plane

PAGE = 200


async def retain(plane: Plane, subject: str, sequence: int | None) -> None:
    """Keep an event of a subject as the retained one; None keeps none. Raises Refused where NATS is away."""
    await plane.log.store(f"{RETAINED_SUBJECT}.{subject}", b"" if sequence is None else b"%d" % sequence)


async def retained(plane: Plane, subject_filter: str) -> AsyncIterator[Event]:
    """Give the retained events that a subject filter matches and that are still kept. Raises Refused."""
    first = 1
    while True:
        try:
            page = await read_batch(plane.nats, RETAINED_STREAM, f"{RETAINED_SUBJECT}.{subject_filter}", first, PAGE)
        except (TimeoutError, NatsError) as error:
            raise Refused(Reason.OVERLOADED, cause="log-away", retry_after_s=1.0) from error
        for event in await asyncio.gather(*(_event(plane, message) for message in page)):
            if event is not None:
                yield event
        if len(page) < PAGE:
            return
        first = int((page[-1].headers or {})["Nats-Sequence"]) + 1


async def _event(plane: Plane, message: Msg) -> Event | None:
    """Read the event that is meant, where its channel still is and still has it."""
    address = address_of((message.headers or {})["Nats-Subject"].removeprefix(f"{RETAINED_SUBJECT}."))
    found = plane.snapshot.channel(address)
    if found is None or not message.data:
        return None
    event = await plane.log.event(found[0], int(message.data))
    return event if event is not None and event.address == address else None
