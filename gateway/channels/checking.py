"""Checks an event by its channel's schema."""

from __future__ import annotations

from typing import Any

from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Validators
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import Parsed
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.strict_json import fail


def check_event(snapshot: Snapshot, validators: Validators, channel: Channel, value: Any) -> None:
    """Raise Refused ``invalid-payload`` with the JSON Pointer of the fault, for an event not as its channel says."""
    if not channel.subject_of_schema:
        validators.check(channel.schema, value)
        return
    _registered(snapshot, channel).check(value)


def evaluations_of(snapshot: Snapshot, validators: Validators, channel: Channel) -> int:
    """Return how many checks each inner value of an event needs at most. Raises Refused."""
    if channel.subject_of_schema:
        return _registered(snapshot, channel).evaluations
    return validators.evaluations_of(channel.schema)


def _registered(snapshot: Snapshot, channel: Channel) -> Parsed:
    latest = snapshot.schema(channel.subject_of_schema)
    if latest is None:
        fail(
            f"The channel's events are of the subject {channel.subject_of_schema}, which has no schema in the registry."
        )
    try:
        return latest.parsed
    except InvalidSchema as fault:
        raise Refused(Reason.INTERNAL, cause="schema-unusable") from fault
