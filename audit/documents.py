"""Every document of the configuration as the rows have it now."""

from __future__ import annotations

from typing import Any

from django.apps import apps

_SOURCES = (
    ("tier", "consumers", "Tier", "name"),
    ("consumer", "consumers", "Consumer", "name"),
    ("key", "keys", "Key", "pk"),
    ("route", "routes", "Route", "name"),
    ("channel", "events", "Channel", "address"),
)
"""Looked up by name: the audit log lies below the apps that write to it."""


def all_documents() -> dict[tuple[str, str], dict[str, Any]]:
    """Give every document by (kind, name)."""
    documents = {}
    for kind, app, model, name in _SOURCES:
        rows: Any = apps.get_model(app, model)._default_manager.all()
        if model == "Key":
            rows = rows.select_related("consumer")
        if model == "Consumer":
            rows = rows.select_related("tier")
        for row in rows:
            documents[kind, str(getattr(row, name))] = row.document()
    return documents
