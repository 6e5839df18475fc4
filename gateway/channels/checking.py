"""Checks an event by its channel's content type and schema."""

from __future__ import annotations

from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Validators
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import Check, Parsed
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.content_types import CONTENT_TYPE_MAX_CHARS, describe, is_media_type, takes
from gateway.wire.strict_json import fail

UNSUPPORTED_TYPE = "content-type"
"""The ``cause`` of a refusal for its media type."""


def require_taken(channel: Channel, content_type: str) -> None:
    """Raise Refused ``invalid-payload`` (415) for an event whose media type is none, or is not taken."""
    if content_type == channel.media_type:
        return
    named = content_type[:CONTENT_TYPE_MAX_CHARS]
    is_known = is_media_type(content_type)
    if not (is_known and takes(channel.content_type, content_type)):
        raise Refused(
            Reason.INVALID_PAYLOAD,
            f"The channel takes {describe(channel.content_type)}, not {named}."
            if is_known
            else f"{named!r} is no media type.",
            status=415,
            cause=UNSUPPORTED_TYPE,
            headers=((b"accept", channel.media_type.encode()),),
            members={"pointer": ""},
        )


def require_utf8(data: bytes) -> None:
    """Raise Refused ``invalid-payload`` for text that is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        fail("The payload is not text in UTF-8.")


def check_of(snapshot: Snapshot, validators: Validators, channel: Channel) -> Check:
    """Return the check of a channel's events. Raises Refused."""
    if channel.subject_of_schema:
        return _registered(snapshot, channel).check
    return validators.check_of(channel.schema)


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
