"""Every change of tiers and consumers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from consumers.limits import clean_limits
from consumers.metadata import clean_metadata
from consumers.models import Consumer, Tier
from consumers.scopes import clean_scopes, every_scope

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "limits": clean_limits,
    "metadata": clean_metadata,
    "scopes": clean_scopes,
}


def create_tier(
    *,
    name: str,
    description: str = "",
    limits: list[dict[str, Any]] | None = None,
    scopes: list[str] | None = None,
    by: str,
) -> Tier:
    """Make a tier. Left out, ``scopes`` bound nothing. Raises ValidationError."""
    tier = Tier(
        name=name,
        description=description,
        limits=clean_limits([] if limits is None else limits),
        scopes=clean_scopes(every_scope() if scopes is None else scopes),
    )
    return recording.create("tier", tier, name, by=by)


def update_tier(tier: Tier, *, by: str, **changes: Any) -> Tier:
    """Change a tier; live connections of its consumers take over new limits. Raises ValidationError.

    Connections that need a right which the tier no longer gives are closed.
    """
    return recording.update("tier", tier, tier.name, _read(changes, ("description", "limits", "scopes")), by=by)


def delete_tier(tier: Tier, *, by: str) -> None:
    """Delete a tier that no consumer has. Raises ValidationError."""
    recording.delete("tier", tier, tier.name, by=by)


def create_consumer(
    *,
    name: str,
    tier: Tier,
    display_name: str = "",
    email: str = "",
    limits: list[dict[str, Any]] | None = None,
    metadata: dict[str, Any] | None = None,
    is_active: bool = True,
    by: str,
) -> Consumer:
    """Make a consumer. Raises ValidationError."""
    consumer = Consumer(
        name=name,
        tier=tier,
        display_name=display_name,
        email=email,
        limits=clean_limits([] if limits is None else limits),
        metadata=clean_metadata({} if metadata is None else metadata),
        is_active=is_active,
    )
    return recording.create("consumer", consumer, name, by=by)


def update_consumer(consumer: Consumer, *, by: str, **changes: Any) -> Consumer:
    """Change a consumer; disabling it closes its live connections. Raises ValidationError."""
    fields = ("display_name", "email", "tier", "limits", "metadata", "is_active")
    return recording.update("consumer", consumer, consumer.name, _read(changes, fields), by=by)


def delete_consumer(consumer: Consumer, *, by: str) -> None:
    """Delete a consumer, its keys and its subscriptions; its live connections are closed.

    Raises ValidationError where it is gone.
    """
    with transaction.atomic():
        recording.lock(consumer, consumer.name)
        for key in consumer.keys.all():
            recording.delete("key", key, key.pk, note=f"with its consumer {consumer.name}", by=by)
        for subscription in consumer.subscriptions.all():
            recording.delete(
                "subscription", subscription, subscription.pk, note=f"with its consumer {consumer.name}", by=by
            )
        recording.delete("consumer", consumer, consumer.name, by=by)


def _read(changes: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Give the changes, cleaned. Raises ValidationError for a field that cannot be changed."""
    for field in changes:
        if field == "name":
            raise ValidationError({field: "Cannot be changed; make a new one."})
        if field not in fields:
            raise ValidationError({field: f"Unknown field; what can be changed: {', '.join(fields)}."})
    return {field: _READERS[field](value) if field in _READERS else value for field, value in changes.items()}
