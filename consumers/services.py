"""Create, update and delete tiers and consumers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from consumers.limits import clean_limits, clean_tier_limits
from consumers.metadata import clean_metadata
from consumers.models import Consumer, Tier
from consumers.scopes import clean_scopes, every_scope

_CLEANERS: Mapping[str, Callable[[Any], Any]] = {
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
    """Create a tier; ``scopes`` default to all, and ``bytes_in`` is always limited. Raises ValidationError."""
    tier = Tier(
        name=name,
        description=description,
        limits=clean_tier_limits([] if limits is None else limits),
        scopes=clean_scopes(every_scope() if scopes is None else scopes),
    )
    return recording.create("tier", tier, name, by=by)


def update_tier(tier: Tier, *, by: str, **changes: Any) -> Tier:
    """Update a tier; open connections of its consumers follow its new limits. Raises ValidationError.

    Connections that need a right which the tier no longer allows are closed.
    """
    cleaned = _clean(changes, ("description", "limits", "scopes"))
    if "limits" in cleaned:
        cleaned["limits"] = clean_tier_limits(cleaned["limits"])
    return recording.update("tier", tier, tier.name, cleaned, by=by)


def delete_tier(tier: Tier, *, by: str) -> None:
    """Delete a tier. Raises ValidationError if a consumer has it."""
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
    """Create a consumer. Raises ValidationError."""
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
    """Update a consumer; disabling it closes its open connections. Raises ValidationError."""
    fields = ("display_name", "email", "tier", "limits", "metadata", "is_active")
    return recording.update("consumer", consumer, consumer.name, _clean(changes, fields), by=by)


def delete_consumer(consumer: Consumer, *, by: str) -> None:
    """Delete a consumer with its keys and subscriptions, and close its open connections. Raises ValidationError."""
    with transaction.atomic():
        recording.lock(consumer, consumer.name)
        for key in consumer.keys.all():
            recording.delete("key", key, key.pk, note=f"with its consumer {consumer.name}", by=by)
        for subscription in consumer.subscriptions.all():
            recording.delete(
                "subscription", subscription, subscription.pk, note=f"with its consumer {consumer.name}", by=by
            )
        recording.delete("consumer", consumer, consumer.name, by=by)


def _clean(changes: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the validated changes. Raises ValidationError, also for a field that cannot be changed."""
    for field in changes:
        if field == "name":
            raise ValidationError({field: "Cannot be changed; create another one."})
        if field not in fields:
            raise ValidationError({field: f"Unknown field; these can be changed: {', '.join(fields)}."})
    return {field: _CLEANERS[field](value) if field in _CLEANERS else value for field, value in changes.items()}
