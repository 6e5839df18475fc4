"""Every change of connectors, and how they do."""

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
    """Connect a broker to a channel; it runs within a second. Raises ValidationError."""
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
    """Change a connector; it goes on where it was. Raises ValidationError."""
    for field in changes:
        if field not in FIELDS:
            raise ValidationError({field: f"Cannot be changed; what can: {', '.join(FIELDS)}."})
    changed = Connector(**(connector.document() | changes))
    _check(changed)
    return recording.update("connector", connector, connector.name, changes, by=by)


def delete_connector(connector: Connector, *, by: str) -> None:
    """Disconnect a broker; a sink's place in the channel is forgotten. Raises ValidationError where it is gone."""
    recording.delete("connector", connector, connector.name, by=by)


def healths() -> dict[str, dict[str, Any]]:
    """Say how the connectors do that run now, by id; nothing where NATS does not answer."""
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
        made = find(row.type, row.direction)
    except (NoSuchKind, NotInstalled) as error:
        raise ValidationError({"type": f"{error}"}) from None
    found = {
        f"options.{name}" if name else "options": text
        for name, text in option_faults(row.options, made.options).items()
    }
    if not isinstance(row.channel, str) or not Channel.objects.filter(address=row.channel).exists():
        found["channel"] = "There is no such channel."
    elif "{" in row.channel and row.direction == "source" and not row.address:
        found["address"] = "Say where records go: the channel's address has parameters, such as `sensors/{key}`."
    if found:
        raise ValidationError(found)
