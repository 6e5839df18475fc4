"""The documents of the snapshot, from the rows as they are now and from what the audit log recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps

from audit.configured import Configured

_MODELS = {
    "tier": "consumers.Tier",
    "consumer": "consumers.Consumer",
    "key": "keys.Key",
    "route": "routes.Route",
    "channel": "events.Channel",
    "issuer": "keys.JwtIssuer",
    "schema": "events.Subject",
    "subscription": "events.Subscription",
    "connector": "events.Connector",
}
"""By label, not by class: the audit log lies below the apps that write to it."""
KINDS = tuple(_MODELS)
"""The kinds of documents in the snapshot; the audit log records other kinds too."""


def all_documents() -> dict[tuple[str, str], dict[str, Any]]:
    """Return every document of the snapshot by (kind, name), as the rows are now, with one query for each kind."""
    documents = {}
    for kind in KINDS:
        model = _model(kind)
        rows: Any = model._default_manager
        for row in rows.documented().iterator():
            documents[kind, str(getattr(row, model.identity))] = row.document()
    return documents


def snapshot_document(kind: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record that is published to the data plane."""
    recorded_only = _model(kind).recorded_only
    return {name: value for name, value in recorded.items() if name not in recorded_only}


def _model(kind: str) -> type[Configured]:
    model: Any = apps.get_model(_MODELS[kind])
    return model  # type: ignore[no-any-return]
