"""Roll the configuration back to an instant, as new changes in one transaction.

A rollback neither undoes the end of a key nor ends one: a revoked or expired key stays so, and a key that was issued
since stays valid as long as its consumer exists. A key that was deleted with its consumer is restored with it.
Subscriptions, dead letters and stored events are not configuration, and are left unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit.diff import Diff
from audit.locks import lock_configuration
from audit.models import Action, Change
from audit.ordered_json import is_same, is_same_record
from audit.services import NotAvailable, configuration_as_of, default_note, require_available
from configuration.apply import put
from configuration.kinds import CHANNEL, CONSUMER, ISSUER, KINDS, REQUIRED, ROUTE, TIER, Kind
from configuration.rehearsal import rehearsal
from consumers.models import Consumer
from keys import services as keys
from keys.models import Key

Records = dict[str, Mapping[str, Any]]
"""The records of objects of one kind, by name."""
_KEY_FIELDS = ("name", *keys.RESTORED)
_CAN_BE_RECREATED = (ROUTE, ISSUER)
"""Kinds to whose rows no other row refers."""


def roll_back(instant: datetime, *, by: str, dry_run: bool = False) -> Diff:
    """Restore the configuration of an instant and return what has changed. Raises ValidationError.

    A dry run makes the same changes in a private copy, so it reports them exactly, and nobody waits for it.
    """
    _check(instant)
    if dry_run:
        history = _History.read(instant)  # of the actual log: the copy has none
        with rehearsal(), transaction.atomic():
            return _restored(history, by)
    with transaction.atomic(), default_note(f"rolled back to {instant.isoformat()}"):
        lock_configuration()
        return _restored(_History.read(instant), by)


@dataclass(frozen=True, slots=True)
class _History:
    """What a rollback needs of the audit log."""

    records: Mapping[str, Records]
    """The records of an instant by kind."""
    deleted_keys: Records
    """The last records of the keys among them that were deleted since, which include whether they were revoked."""

    @classmethod
    def read(cls, instant: datetime) -> Self:
        records: dict[str, dict[str, Mapping[str, Any]]] = {}
        for (kind, name), document in configuration_as_of(instant).items():
            records.setdefault(kind, {})[name] = document
        deleted = records.get("key", {}).keys() - set(Key.objects.values_list("id", flat=True))
        return cls(records, _last_records(deleted))

    def of(self, kind: str) -> Records:
        return self.records.get(kind, {})


def _restored(history: _History, by: str) -> Diff:
    before = _representations()
    for kind in (ROUTE, CHANNEL, CONSUMER, ISSUER):
        _delete_others(kind, history.of(kind.kind), by)
    for kind in KINDS:
        _restore(kind, history.of(kind.kind), by)
    _restore_keys(history, by)
    _delete_others(TIER, history.of(TIER.kind), by)
    return _difference(before, _representations())


def _check(instant: datetime) -> None:
    first = Change.objects.order_by("id").values_list("at", flat=True).first()
    if first is None or instant < first:
        begins = "is empty" if first is None else f"begins at {first.isoformat()}"
        raise ValidationError({"to": f"The audit log {begins}: it has no configuration of {instant.isoformat()}."})
    try:
        require_available(instant)
    except NotAvailable as error:
        raise ValidationError({"to": str(error)}) from None
    if instant > timezone.now():
        raise ValidationError({"to": "Must be in the past."})


def _delete_others(kind: Kind, records: Records, by: str) -> None:
    for row in kind.rows():
        name = getattr(row, kind.identity)
        if name not in records:
            with _prefixed(kind.kind, name):
                kind.delete(row, by=by)


def _restore(kind: Kind, records: Records, by: str) -> None:
    """Restore the objects that differ, in any order that works: a path may be free only after another change."""
    present = {getattr(row, kind.identity): row.recorded() for row in kind.rows()}
    left = {
        name: _values(kind, document)
        for name, document in records.items()
        if not is_same_record(present.get(name), document)
    }
    while left:
        still_left = {name: values for name, values in left.items() if not _try_put(kind, values, by)}
        if len(still_left) == len(left):
            break
        left = still_left
    if left and kind in _CAN_BE_RECREATED:
        for name in left:
            if (row := kind.find(name)) is not None:
                kind.delete(row, by=by)
    for name, values in left.items():
        with _prefixed(kind.kind, name):
            put(kind, values, by=by)


def _values(kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a service from a record; fields that an older record lacks have their defaults."""
    defaults = {field: default for field, default in kind.fields.items() if default is not REQUIRED}
    return defaults | {field: document[field] for field in kind.fields if field in document} | kind.recorded(document)


def _try_put(kind: Kind, values: dict[str, Any], by: str) -> bool:
    try:
        with transaction.atomic():
            put(kind, values, by=by)
    except ValidationError:
        return False
    return True


def _restore_keys(history: _History, by: str) -> None:
    present = {key.id: key for key in Key.objects.with_consumer()}
    # In the order in which they were issued, as a key may have been rotated from another.
    for key_id, document in history.of("key").items():
        settings = {field: document[field] for field in _KEY_FIELDS if field in document}
        with _prefixed("key", key_id):
            if key_id in history.deleted_keys:
                _restore_key({**history.deleted_keys[key_id], **settings}, by)
            elif not all(is_same(getattr(present[key_id], field), value) for field, value in settings.items()):
                keys.update_key(present[key_id], **settings, by=by)


def _restore_key(recorded: dict[str, Any], by: str) -> None:
    consumer = Consumer.objects.filter(name=recorded["consumer"]).first()
    if consumer is not None:  # only a clock that went backwards makes it None
        keys.restore_key(recorded, consumer=consumer, by=by)


def _last_records(key_ids: set[str]) -> Records:
    """Return the records of deleted keys at their deletion."""
    records: Records = {}
    for change in Change.objects.filter(kind="key", name__in=key_ids, action=Action.DELETED).order_by("id"):
        records[change.name] = change.before or {}
    return records


def _representations() -> dict[tuple[str, str], dict[str, Any]]:
    representations = {
        (kind.kind, getattr(row, kind.identity)): row.representation() for kind in KINDS for row in kind.rows()
    }
    return representations | {
        ("key", key.id): key.representation() for key in Key.objects.with_consumer().order_by("id")
    }


def _difference(
    before: Mapping[tuple[str, str], dict[str, Any]], after: Mapping[tuple[str, str], dict[str, Any]]
) -> Diff:
    diff = Diff()
    for which in {**before, **after}:
        diff.add(*which, before.get(which), after.get(which))
    return diff


@contextmanager
def _prefixed(kind: str, name: str) -> Iterator[None]:
    """Prefix errors of a service with the object that they are about."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError(f"{kind} {name}: {' '.join(error.messages)}") from None
