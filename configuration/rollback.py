"""Going back to the configuration of an instant, as a new change: all of it in one transaction, or nothing.

What ends a key is never undone, and nothing else ends one: a revoked or expired key stays so, and a key that was issued
since stays usable as long as its consumer is there. A key that went with its consumer comes back with it.
Subscriptions, dead letters and stored events are not configuration, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit.diff import Diff
from audit.locks import lock_configuration
from audit.models import Action, Change
from audit.services import configuration_as_of, default_note
from configuration.apply import put
from configuration.kinds import CHANNEL, CONSUMER, ISSUER, KINDS, REQUIRED, ROUTE, TIER, Kind
from consumers.models import Consumer
from keys import services as keys
from keys.models import Key

Named = dict[str, Mapping[str, Any]]
"""What the log recorded of each object of one kind, by name."""
_KEY_FIELDS = ("name", *keys.RESTORED)
_CAN_BE_MADE_ANEW = (ROUTE, ISSUER)
"""Kinds whose rows nothing hangs on."""


def roll_back(instant: datetime, *, by: str, dry_run: bool = False) -> Diff:
    """Make the configuration what it was at an instant. Gives what has changed. Raises ValidationError.

    A dry run makes the same changes and takes them back, so what it says is what will be.
    """
    _check(instant)
    with transaction.atomic(), default_note(f"rolled back to {instant.isoformat()}"):
        lock_configuration()
        before = _present()
        recorded = configuration_as_of(instant)
        wanted = {kind.kind: _of_kind(recorded, kind.kind) for kind in KINDS}
        for kind in (ROUTE, CHANNEL, CONSUMER, ISSUER):
            _delete_others(kind, wanted[kind.kind], by)
        for kind in KINDS:
            _restore(kind, wanted[kind.kind], by)
        _restore_keys(_of_kind(recorded, "key"), by)
        _delete_others(TIER, wanted[TIER.kind], by)
        diff = _difference(before, _present())
        if dry_run:
            transaction.set_rollback(True)
    return diff


def _check(instant: datetime) -> None:
    first = Change.objects.order_by("id").values_list("at", flat=True).first()
    if first is None or instant < first:
        begins = "is empty" if first is None else f"begins at {first.isoformat()}"
        raise ValidationError({"to": f"The audit log {begins}: nothing is known of {instant.isoformat()}."})
    if instant > timezone.now():
        raise ValidationError({"to": "Must lie in the past."})


def _of_kind(recorded: Mapping[tuple[str, str], Mapping[str, Any]], kind: str) -> Named:
    return {name: document for (of, name), document in recorded.items() if of == kind}


def _delete_others(kind: Kind, wanted: Named, by: str) -> None:
    for row in kind.rows():
        name = getattr(row, kind.identity)
        if name not in wanted:
            with _naming(kind.kind, name):
                kind.delete(row, by=by)


def _restore(kind: Kind, wanted: Named, by: str) -> None:
    """Bring back what differs; where two stand in each other's way, as paths of routes do, in any order that works."""
    present = {getattr(row, kind.identity): row.recorded() for row in kind.rows()}
    left = {name: _values(kind, document) for name, document in wanted.items() if present.get(name) != document}
    while left:
        refused = {name: values for name, values in left.items() if not _is_put(kind, values, by)}
        if len(refused) == len(left):
            break
        left = refused
    if left and kind in _CAN_BE_MADE_ANEW:
        for name in left:
            if (row := kind.find(name)) is not None:
                kind.delete(row, by=by)
    for name, values in left.items():
        with _naming(kind.kind, name):
            put(kind, values, by=by)


def _values(kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields that a service takes. What an older record lacks has its default."""
    missing = {field: default for field, default in kind.fields.items() if default is not REQUIRED}
    return missing | {field: document[field] for field in kind.fields if field in document}


def _is_put(kind: Kind, values: dict[str, Any], by: str) -> bool:
    try:
        with transaction.atomic():
            put(kind, values, by=by)
    except ValidationError:
        return False
    return True


def _restore_keys(wanted: Named, by: str) -> None:
    present = {key.id: key for key in Key.objects.with_consumer()}
    gone = _last_known({key_id for key_id in wanted if key_id not in present})
    # In the order in which they were issued: one may have been rotated from another.
    for key_id, document in wanted.items():
        settings = {field: document[field] for field in _KEY_FIELDS if field in document}
        with _naming("key", key_id):
            if key_id in gone:
                _restore_key({**gone[key_id], **settings}, by)
            elif any(getattr(present[key_id], field) != value for field, value in settings.items()):
                keys.update_key(present[key_id], **settings, by=by)


def _restore_key(recorded: dict[str, Any], by: str) -> None:
    consumer = Consumer.objects.filter(name=recorded["consumer"]).first()
    if consumer is not None:  # it is, but where a clock went backwards between the two
        keys.restore_key(recorded, consumer=consumer, by=by)


def _last_known(key_ids: set[str]) -> Named:
    """Give what was known of deleted keys when they were deleted: whether they were revoked is told there."""
    found: Named = {}
    for change in Change.objects.filter(kind="key", name__in=key_ids, action=Action.DELETED).order_by("id"):
        found[change.name] = change.before or {}
    return found


def _present() -> dict[tuple[str, str], dict[str, Any]]:
    found = {(kind.kind, getattr(row, kind.identity)): row.representation() for kind in KINDS for row in kind.rows()}
    return found | {("key", key.id): key.representation() for key in Key.objects.with_consumer().order_by("id")}


def _difference(
    before: Mapping[tuple[str, str], dict[str, Any]], after: Mapping[tuple[str, str], dict[str, Any]]
) -> Diff:
    diff = Diff()
    for which in {**before, **after}:
        diff.add(*which, before.get(which), after.get(which))
    return diff


@contextmanager
def _naming(kind: str, name: str) -> Iterator[None]:
    """Say of which object a service refused something."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError(f"{kind} {name}: {' '.join(error.messages)}") from None
