"""Every change of tiers and consumers."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from consumers.limits import cleaned
from consumers.models import Consumer, Tier

METADATA_MAX_MEMBERS = 50


def create_tier(*, name: str, description: str = "", limits: list[dict[str, Any]] | None = None, by: str) -> Tier:
    """Make a tier. Raises ValidationError."""
    return recording.create("tier", Tier(name=name, description=description, limits=cleaned(limits or [])), name, by=by)


def update_tier(tier: Tier, *, by: str, **changes: Any) -> Tier:
    """Change a tier; live connections of its consumers take over new limits. Raises ValidationError."""
    _fixed(changes, "name")
    if "limits" in changes:
        changes["limits"] = cleaned(changes["limits"])
    return recording.update("tier", tier, tier.name, changes, by=by)


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
        limits=cleaned(limits or []),
        metadata=_metadata(metadata or {}),
        is_active=is_active,
    )
    return recording.create("consumer", consumer, name, by=by)


def update_consumer(consumer: Consumer, *, by: str, **changes: Any) -> Consumer:
    """Change a consumer; disabling it closes its live connections. Raises ValidationError."""
    _fixed(changes, "name")
    if "limits" in changes:
        changes["limits"] = cleaned(changes["limits"])
    if "metadata" in changes:
        changes["metadata"] = _metadata(changes["metadata"])
    return recording.update("consumer", consumer, consumer.name, changes, by=by)


def delete_consumer(consumer: Consumer, *, by: str) -> None:
    """Delete a consumer and its keys; its live connections are closed."""
    with transaction.atomic():
        for key in consumer.keys.all():
            recording.delete("key", key, key.pk, note=f"with its consumer {consumer.name}", by=by)
        recording.delete("consumer", consumer, consumer.name, by=by)


def _metadata(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict) or len(metadata) > METADATA_MAX_MEMBERS:
        raise ValidationError({"metadata": f"An object with at most {METADATA_MAX_MEMBERS} members."})
    return metadata


def _fixed(changes: dict[str, Any], field: str) -> None:
    if field in changes:
        raise ValidationError({field: "Cannot be changed; make a new one."})
