"""What a caller requests to read: channel, subjects and position; and the notice of a gap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gateway.call import Call
from gateway.channels.access import channel_for, is_routed_to, require_protocol
from gateway.identity.rights import require
from gateway.log.catch_up import Gap
from gateway.log.event_log import EventLog
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel, Snapshot
from gateway.snapshot.right import Right, Verb
from gateway.wire.subjects import AddressError, Template, filters_of, matches


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a channel to read: one concrete address, or all that a template or filter matches."""

    address: str
    """As the caller wrote it."""
    channel: Channel
    subject: str

    @property
    def right(self) -> Right:
        """The right that reading it needs."""
        return Right(Verb.SUBSCRIBE, self.address)


def select(snapshot: Snapshot, call: Call, address: str) -> Selection:
    """Resolve an address to read: a concrete one, a channel's template, or one with ``+`` for a level.

    Raises Refused ``forbidden``, ``not-found`` or ``invalid-request``.
    """
    if "{" not in address and "+" not in address.split("/"):
        channel, subject = channel_for(snapshot, call, address, Verb.SUBSCRIBE)
        return Selection(address, channel, subject)
    if not is_routed_to(call, address):
        require(call.caller, Right(Verb.SUBSCRIBE, address))
    subject = _pattern_subject(address)
    for channel in snapshot.channels():
        if matches(channel.subject, subject):
            require_protocol(channel, call)
            return Selection(address, channel, subject)
    raise Refused(Reason.NOT_FOUND, f"There is no channel at {address}.", cause="unknown-channel")


async def resolve(log: EventLog, channel: Channel, position: int | datetime | None) -> int | None:
    """Turn an instant into the id before the first event since then. Raises Refused while the log is unavailable."""
    if not isinstance(position, datetime):
        return position
    return (await log.sequence_at(channel, position)) - 1


def gap_members(public_url: str, selection: Selection, gap: Gap) -> dict[str, Any]:
    """Return the members of a gap notice: the lost ids, the cause, and the URL of the remaining history."""
    return {
        "channel": selection.address,
        "from": str(gap.from_id),
        "to": str(gap.to_id),
        "cause": gap.cause,
        "history": f"{public_url}/v1/channels/{quote(selection.address)}/events?after={gap.to_id - 1}",
    }


def _pattern_subject(address: str) -> str:
    try:
        return Template.parse(address).subject if "{" in address else filters_of(address)[0]
    except AddressError as error:
        raise Refused(Reason.INVALID_REQUEST, f"{error}.", cause="invalid-address") from None
