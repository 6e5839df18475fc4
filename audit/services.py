"""Appending to the audit log, and the configuration that it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from audit.models import Action, Change

Document = Mapping[str, Any]


def record(
    kind: str, name: str, *, before: Document | None, after: Document | None, note: str = "", by: str
) -> Change | None:
    """Append one change, in the transaction of what it records. Nothing is appended where nothing has changed.

    ``before`` and ``after`` are what ``recorded()`` gives: the snapshot document and what only the control plane knows.
    """
    assert connection.in_atomic_block, "a change is recorded in the transaction of what it records"
    if before == after:
        return None
    action = Action.CREATED if before is None else Action.DELETED if after is None else Action.UPDATED
    return Change.objects.create(
        actor=by, kind=kind, name=name, action=action, before=before, after=after, note=note[:300]
    )


def published(changes: list[int]) -> None:
    """Mark changes as told to the data plane."""
    Change.objects.filter(id__in=changes).update(published_at=timezone.now())


def configuration_as_of(instant: datetime) -> dict[tuple[str, str], Document]:
    """Give every document as it stood at an instant, by (kind, name), from the log alone."""
    documents: dict[tuple[str, str], Document] = {}
    for change in Change.objects.as_of(instant).iterator():
        if change.after is None:
            documents.pop((change.kind, change.name), None)
        else:
            documents[change.kind, change.name] = change.after
    return documents
