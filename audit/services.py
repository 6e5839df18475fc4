"""Appending to the audit log, and the configuration that it amounts to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit.diff import Diff
from audit.models import Action, Change

Document = Mapping[str, Any]

HIDDEN = frozenset({"digest"})
"""What a change keeps of a key but nobody is shown."""
_noted: ContextVar[str] = ContextVar("noted", default="")


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
        actor=by, kind=kind, name=name, action=action, before=before, after=after, note=(note or _noted.get())[:300]
    )


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Write this note on every change made within, but where a change has its own."""
    token = _noted.set(note)
    try:
        yield
    finally:
        _noted.reset(token)


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


def instant_of(text: str) -> datetime:
    """Read an RFC 3339 instant; without an offset it is UTC. Raises ValueError."""
    try:
        instant = parse_datetime(text) or datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("Must be an RFC 3339 instant, such as 2026-01-31T12:00:00Z.") from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def differences(since: datetime, until: datetime) -> Diff:
    """Say what became of each object between two instants, without what nobody is shown."""
    before, after = configuration_as_of(since), configuration_as_of(until)
    diff = Diff()
    for which in sorted({*before, *after}):
        diff.add(*which, shown(before.get(which)), shown(after.get(which)))
    return diff


def shown(recorded: Document | None) -> dict[str, Any] | None:
    """Give what was recorded without what nobody is shown."""
    return None if recorded is None else {name: value for name, value in recorded.items() if name not in HIDDEN}
