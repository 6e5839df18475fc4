"""Services that create, change and delete connectors, and their health."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoKeysError

from audit import bus, recording
from events.models import Channel, Connector
from gateway.connectors.broker import option_faults
from gateway.connectors.kinds import NoSuchKind, NotInstalled, find
from gateway.link.nats import CONNECTORS_BUCKET

FIELDS = ("options", "address", "start", "is_active")
STOPPED: dict[str, Any] = {"state": "stopped", "error": "", "passed": None, "buried": None, "last_at": None}


def create_connector(
    *,
    name: str,
    type: str,  # noqa: A002 - the field's name
    direction: str,
    channel: str,
    options: dict[str, Any] | None = None,
    address: str = "",
    start: str = "latest",
    is_active: bool = True,
    by: str,
) -> Connector:
    """Create a connector; it runs within a second. Raises ValidationError."""
    row = Connector(
        id=secrets.token_hex(8),
        name=name,
        type=type,
        direction=direction,
        channel=channel,
        options={} if options is None else options,
        address=address,
        start=start,
        is_active=is_active,
    )
    _check(row)
    return recording.create("connector", row, name, by=by)


def update_connector(connector: Connector, /, *, by: str, **changes: Any) -> Connector:
    """Change a connector; it continues at its position. Raises ValidationError."""
    for field in changes:
        if field not in FIELDS:
            raise ValidationError({field: f"Cannot be changed. Fields that can be changed: {', '.join(FIELDS)}."})
    changed = Connector(**(connector.document() | changes))
    _check(changed)
    return recording.update("connector", connector, connector.name, changes, by=by)


def delete_connector(connector: Connector, *, by: str) -> None:
    """Delete a connector and a sink's position. Raises ValidationError if it no longer exists."""
    recording.delete("connector", connector, connector.name, by=by)


def healths() -> dict[str, dict[str, Any]]:
    """Return the health of the running connectors, by id; empty if NATS is unavailable."""
    try:
        return bus.query(_healths)
    except bus.Unavailable:
        return {}


async def _healths(client: Client) -> dict[str, dict[str, Any]]:
    try:
        bucket = await client.jetstream().key_value(CONNECTORS_BUCKET)
        entries = await asyncio.gather(*[bucket.get(key) for key in await bucket.keys()])
    except (NoKeysError, APIError, NatsError):
        return {}
    return {entry.key: orjson.loads(entry.value or b"{}") for entry in entries}


def _check(row: Connector) -> None:
    try:
        implementation = find(row.type, row.direction)
    except (NoSuchKind, NotInstalled) as error:
        raise ValidationError({"type": f"{error}"}) from None
    errors = {
        f"options.{name}" if name else "options": text
        for name, text in option_faults(row.options, implementation.options).items()
    }
    if not isinstance(row.channel, str) or not Channel.objects.filter(address=row.channel).exists():
        errors["channel"] = "There is no such channel."
    elif "{" in row.channel and row.direction == "source" and not row.address:
        errors["address"] = (
            "Required, as the channel's address has parameters: where records go, such as `sensors/{key}`."
        )
    if errors:
        raise ValidationError(errors)
