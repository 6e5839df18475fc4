"""What a caller requests to read: channel, subjects and position; and the notice of a gap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.call import Call
from gateway.channels.access import channel_for, is_routed_to, require_protocol
from gateway.identity.rights import require
from gateway.log.catch_up import Gap
from gateway.log.event_log import EventLog
from gateway.refusals import Reason, Refused
from gateway.snapshot.paths import channel_events_path
from gateway.snapshot.picture import Channel, Snapshot
from gateway.snapshot.right import Right, Verb
from gateway.wire.subjects import AddressError, is_pattern, reading_filter


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
    """Resolve an address to read: a concrete one, or one with wildcards such as a channel's template.

    Raises Refused ``forbidden``, ``not-found`` or ``invalid-request``.
    """
    if not is_routed_to(call, address):
        require(call.caller, Right(Verb.SUBSCRIBE, address))
    try:
        subject = reading_filter(address)
    except AddressError as error:
        raise Refused(Reason.INVALID_REQUEST, f"{error}.", cause="invalid-address") from None
    if not is_pattern(subject):
        return Selection(address, channel_for(snapshot, call, address, Verb.SUBSCRIBE)[0], subject)
    channel = snapshot.channel_covering(subject)
    if channel is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {address}.", cause="unknown-channel")
    require_protocol(channel, call)
    return Selection(address, channel, subject)


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
        "history": f"{public_url}{channel_events_path(selection.address)}?after={gap.to_id - 1}",
    }
