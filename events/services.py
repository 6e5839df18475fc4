"""Services that create, change and delete channels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from audit.locks import lock_configuration
from audit.models import Change
from events.letters import discard, record_dead_letters, redrive
from events.models import Channel, template_of
from events.registry import latest
from gateway.schemas.checker import compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.wire.content_types import JSON, ContentTypeError, is_json, media_type_of, parse_content_type
from gateway.wire.subjects import AddressError, meet, stored_prefix, subject_of

__all__ = ["create_channel", "delete_channel", "discard", "record_dead_letters", "redrive", "update_channel"]

_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
PROTOCOLS = ("http", "sse", "websocket", "mqtt", "amqp")
RETENTION_MAX = {"max_age_s": 100 * 366 * 24 * 3600, "max_bytes": 10**15, "max_events": 10**15}
FIELDS = ("title", "content_type", "schema", "on_invalid", "retention", "protocols", "parameters", "imported_from")
VALUES_MAX = 1_000
"""Values that a parameter of an address may be restricted to."""


def create_channel(*, by: str, **fields: Any) -> Channel:
    """Create a channel with the fields of :func:`new_channel`; its stream is created within a second.

    Raises ValidationError.
    """
    channel = new_channel(**fields)
    with transaction.atomic():
        lock_configuration()
        check_free(channel, Channel.objects.values_list("address", flat=True))
        channel.subject_prefix = subject_prefix(channel)
        return recording.create("channel", channel, channel.address, by=by)


def new_channel(
    *,
    address: str,
    title: str = "",
    content_type: str = JSON,
    schema: Mapping[str, Any] | None = None,
    on_invalid: str = "reject",
    retention: Mapping[str, Any] | None = None,
    protocols: list[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    imported_from: str = "",
) -> Channel:
    """Return a valid channel that is not saved and has no ``subject_prefix`` yet. Raises ValidationError.

    Whether another channel has its addresses already is left to the caller.
    """
    channel = Channel(
        address=address,
        title=title,
        content_type=_content_type(content_type),
        schema=_schema(schema),
        on_invalid=on_invalid,
        retention=_retention({} if retention is None else retention),
        protocols=_protocols([] if protocols is None else protocols),
        parameters=_parameters({} if parameters is None else parameters),
        imported_from=imported_from,
    )
    _check_address(address)
    check_fields(channel)
    return channel


def update_channel(channel: Channel, *, by: str, **changes: Any) -> Channel:
    """Change a channel; its events and subscriptions are kept. Raises ValidationError."""
    parsed = changed_fields(changes)
    with transaction.atomic():
        updated = recording.update("channel", channel, channel.address, parsed, by=by)
        check_fields(updated)
        return updated


def changed_fields(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the valid values of fields that change; whether they fit each other is left to :func:`check_fields`.

    Raises ValidationError.
    """
    parsers = {
        "content_type": _content_type,
        "schema": _schema,
        "retention": _retention,
        "protocols": _protocols,
        "parameters": _parameters,
    }
    for field in changes:
        if field == "address":
            raise ValidationError({field: "Cannot be changed; create a new channel."})
        if field not in FIELDS:
            raise ValidationError({field: f"Unknown field. Fields that can be changed: {', '.join(FIELDS)}."})
    return {field: parsers[field](value) if field in parsers else value for field, value in changes.items()}


def delete_channel(channel: Channel, *, by: str) -> None:
    """Delete a channel. Its events are kept until they expire, and are back if it is recreated before then."""
    recording.delete("channel", channel, channel.address, by=by)


def _check_address(address: Any) -> None:
    if not isinstance(address, str):
        raise ValidationError({"address": "Must be a string."})
    if _CONTROL.search(address):
        # It could not be named in a path of the management API, or shown; values of parameters may have them.
        raise ValidationError({"address": "The address of a channel must not contain control characters."})
    try:
        template_of(address)
    except AddressError as error:
        raise ValidationError({"address": f"{error}."}) from None


def check_free(channel: Channel, others: Iterable[str]) -> None:
    """Raise ValidationError if another channel has the same addresses."""
    for other in others:
        if other != channel.address and template_of(other).subject == channel.subject:
            raise ValidationError({"address": f"Has the same addresses as the channel {other}."})


def subject_prefix(channel: Channel) -> str:
    """Return what the subjects of a channel's events begin with.

    An earlier version created channels without one. Where such a channel is recreated, what is left of its events must
    be found, so that it has none again, unless NATS would take its subjects for those of another such channel.
    """
    last = Change.objects.filter(kind="channel", name=channel.address).first()
    document = (last.after or last.before or {}) if last is not None else {}
    plain = Channel.objects.filter(subject_prefix="").exclude(address=channel.address).values_list("address", flat=True)
    if last is None or document.get("subject_prefix"):
        return stored_prefix(channel.stream)
    is_alone = not any(meet(template_of(other).subject, channel.subject) for other in plain)
    return "" if is_alone and document.get("subject") == channel.subject else stored_prefix(channel.stream)


def check_fields(channel: Channel) -> None:
    """Raise ValidationError for fields that do not fit each other."""
    if channel.schema is not None and not is_json(media_type_of(channel.content_type)):
        raise ValidationError(
            {"schema": "Only events in JSON have a schema; remove it, or set `content_type` to `json`."}
        )
    unknown = set(channel.parameters) - set(template_of(channel.address).parameters)
    if unknown:
        raise ValidationError({"parameters": f"The address has no parameter {min(unknown)}."})


def _content_type(content_type: Any) -> str:
    if not isinstance(content_type, str):
        raise ValidationError({"content_type": "Must be a string."})
    try:
        return parse_content_type(content_type)
    except ContentTypeError as error:
        raise ValidationError({"content_type": f"{error}."}) from None


def _parameters(parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, Mapping):
        raise ValidationError({"parameters": "Must be an object, with an `enum` for each restricted parameter."})
    return {name: {"enum": _enum(f"parameters.{name}", value)} for name, value in parameters.items()}


def _enum(at: str, parameter: Any) -> list[str]:
    if not isinstance(parameter, Mapping) or set(parameter) != {"enum"}:
        raise ValidationError({at: "Must be an object with the member `enum`."})
    values = parameter["enum"]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= VALUES_MAX:
        raise ValidationError({at: f"`enum` must be a list of 1 to {VALUES_MAX} values."})
    for value in values:
        try:
            if not isinstance(value, str) or "/" in value:
                raise AddressError("each value is a string without slashes")
            subject_of(value)
        except AddressError as error:
            raise ValidationError({at: f"{error}."}) from None
    return list(dict.fromkeys(values))


def _schema(schema: Any) -> Any:
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise ValidationError({"schema": "A JSON Schema must be an object."})
    if set(schema) == {"subject"}:
        if not isinstance(schema["subject"], str) or latest(schema["subject"]) is None:
            raise ValidationError({"schema": "The registry has no schema for this subject; register one first."})
        return dict(schema)
    try:
        _check_schema(orjson.dumps(schema))
    except TypeError:
        raise ValidationError({"schema": "Must be plain JSON."}) from None
    except InvalidSchema as error:
        raise ValidationError({"schema": f"{error}"}) from None
    return dict(schema)


@lru_cache(maxsize=128)
def _check_schema(text: bytes) -> None:
    """Raise InvalidSchema for a schema that cannot be compiled; many channels of a document may have the same."""
    compile_schema(orjson.loads(text))


def _retention(retention: Any) -> dict[str, Any]:
    if not isinstance(retention, Mapping):
        raise ValidationError({"retention": "Must be an object."})
    bounds = {}
    for name, value in retention.items():
        if name not in RETENTION_MAX:
            raise ValidationError({f"retention.{name}": f"Unknown field. Fields: {', '.join(RETENTION_MAX)}."})
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= RETENTION_MAX[name]:
            raise ValidationError({f"retention.{name}": f"Must be a number from 1 to {RETENTION_MAX[name]}."})
        if value != int(value):
            raise ValidationError({f"retention.{name}": "Must be a whole number."})
        bounds[name] = int(value)
    return bounds


def _protocols(protocols: Any) -> list[str]:
    if not isinstance(protocols, list | tuple) or any(name not in PROTOCOLS for name in protocols):
        raise ValidationError({"protocols": f"A list of {', '.join(PROTOCOLS)}."})
    return list(dict.fromkeys(protocols))
