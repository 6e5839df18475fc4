"""Every document of the configuration, as the rows have it now and as the audit log tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps

KINDS = ("tier", "consumer", "key", "route", "channel", "issuer", "schema", "subscription", "connector")
"""What the snapshot holds; the audit log knows other kinds too."""

_MODELS = {
    "tier": ("consumers", "Tier", "name"),
    "consumer": ("consumers", "Consumer", "name"),
    "key": ("keys", "Key", "id"),
    "route": ("routes", "Route", "name"),
    "channel": ("events", "Channel", "address"),
    "issuer": ("keys", "JwtIssuer", "name"),
    "schema": ("events", "Subject", "name"),
    "subscription": ("events", "Subscription", "id"),
    "connector": ("events", "Connector", "name"),
}
"""Looked up by name: the audit log lies below the apps that write to it."""

_CONTROL_PLANE_ALONE: Mapping[str, frozenset[str]] = {
    "tier": frozenset({"description"}),
    "consumer": frozenset({"display_name", "email"}),
    "key": frozenset({"name", "revoked_reason", "rotated_from"}),
    "schema": frozenset({"numbers"}),
}
"""What is recorded of each kind but is no business of the data plane."""


def all_documents() -> dict[tuple[str, str], dict[str, Any]]:
    """Give every snapshot document by (kind, name), as the rows have it now: one query a kind."""
    documents = {}
    for kind, (app, model, name) in _MODELS.items():
        rows: Any = apps.get_model(app, model)._default_manager
        for row in rows.documented().iterator():
            documents[kind, str(getattr(row, name))] = row.document()
    return documents


def snapshot_document(kind: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the data plane is told of what the audit log recorded."""
    hidden = _CONTROL_PLANE_ALONE.get(kind, frozenset())
    return {name: value for name, value in recorded.items() if name not in hidden}
