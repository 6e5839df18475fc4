"""Append to the audit log, and compute the configuration as of an instant from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit.configured import rfc3339
from audit.diff import Diff
from audit.models import Action, Change, Checkpoint
from audit.ordered_json import is_same_record

Record = Mapping[str, Any]
"""What ``recorded()`` of a row returns (:mod:`audit.configured`)."""

HIDDEN = frozenset({"digest", "sealed_credential"})
"""Recorded, but never shown: the digest of a key, and the encrypted credential of a route's upstream."""
_default_note: ContextVar[str] = ContextVar("default_note", default="")


def record(
    kind: str, name: str, *, before: Record | None, after: Record | None, note: str = "", by: str
) -> Change | None:
    """Append one change, in the transaction of the change itself. Returns None when nothing has changed."""
    assert connection.in_atomic_block, "a change is recorded in its own transaction"
    if is_same_record(before, after):
        return None
    change = change_of(kind, name, before=before, after=after, note=note, by=by)
    change.save(force_insert=True)
    return change


def change_of(kind: str, name: str, *, before: Record | None, after: Record | None, note: str = "", by: str) -> Change:
    """Return the record of a change, which is not saved."""
    action = Action.CREATED if before is None else Action.DELETED if after is None else Action.UPDATED
    return Change(
        actor=by,
        kind=kind,
        name=name,
        action=action,
        before=before,
        after=after,
        note=(note or _default_note.get())[:300],
    )


def record_event(kind: str, name: str, action: Action, *, note: str = "", by: str) -> Change:
    """Append something that changes no object, such as a sign-in."""
    return Change.objects.create(actor=by[:150], kind=kind, name=name[:255], action=action, note=note[:300])


@contextmanager
def default_note(note: str) -> Iterator[None]:
    """Set the note of every change that is recorded within the block without a note."""
    token = _default_note.set(note)
    try:
        yield
    finally:
        _default_note.reset(token)


def mark_published(changes: list[int]) -> None:
    """Mark changes as published to the data plane."""
    Change.objects.filter(id__in=changes).update(published_at=timezone.now())


class NotAvailable(ValueError):
    """The log no longer has the configuration of an instant: earlier changes were exported."""


def require_available(instant: datetime) -> None:
    """Raise NotAvailable for an instant before the one since which a bounded log is complete."""
    begins_at = Checkpoint.complete_since()
    if begins_at is not None and instant < begins_at:
        raise NotAvailable(
            f"The audit log is complete since {rfc3339(begins_at)}: earlier changes were exported and deleted, so the "
            f"configuration of {rfc3339(instant)} is not available."
        )


def configuration_as_of(instant: datetime) -> dict[tuple[str, str], Record]:
    """Return the record of every object as of an instant, by (kind, name), from the audit log alone.

    Raises NotAvailable.
    """
    require_available(instant)
    documents: dict[tuple[str, str], Record] = {}
    for change in Change.objects.as_of(instant).iterator():
        if change.after is None:
            documents.pop((change.kind, change.name), None)
        else:
            documents[change.kind, change.name] = change.after
    return documents


def instant_of(text: str) -> datetime:
    """Parse an RFC 3339 instant; without an offset it is in UTC. Raises ValueError."""
    try:
        instant = parse_datetime(text) or datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # its offset may move it out of the calendar
        raise ValueError("Must be an RFC 3339 instant, such as 2026-01-31T12:00:00Z.") from None


def diff_between(since: datetime, until: datetime) -> Diff:
    """Return how each object differs between two instants, without hidden fields. Raises NotAvailable."""
    before, after = configuration_as_of(since), configuration_as_of(until)
    diff = Diff()
    for which in sorted({*before, *after}):
        diff.add(*which, without_hidden(before.get(which)), without_hidden(after.get(which)))
    return diff


def without_hidden(recorded: Record | None) -> dict[str, Any] | None:
    """Return a record without its hidden fields."""
    return None if recorded is None else {name: value for name, value in recorded.items() if name not in HIDDEN}
