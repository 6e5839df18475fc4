"""Write many changes in a short transaction: they are made in a private copy first, and then written in bulk.

The services validate, save and record each object by itself, which takes some milliseconds. Other writers would wait
for the whole of it, and the management API would refuse them. Only what the copy has in the end is written under the
lock: the same rows, and the same records of the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from django.db import transaction

from audit.configured import Configured
from audit.locks import lock_configuration
from audit.models import Change
from configuration.bulk_rows import Statement
from configuration.kinds import Kind
from configuration.rehearsal import rehearsal

ATTEMPTS = 3
Result = TypeVar("Result")


def staged(work: Callable[[], Result], kinds: Collection[Kind]) -> Result:
    """Call a function that creates and updates objects of some kinds, and write what it did in one short transaction.

    What it does must depend on objects of these kinds alone. Where somebody else changes one of them meanwhile, it is
    called again; after some attempts under the lock of the configuration itself. Raises what the function raises; then
    nothing is written.
    """
    for _ in range(ATTEMPTS):
        last = _last_change(kinds)
        with rehearsal(), transaction.atomic():
            result = work()
            changes = list(Change.objects.order_by("id"))
            rows = [(kind, _changed(kind, changes)) for kind in kinds]
        # Everything but the writing itself is done before others wait for the lock.
        statements = [Statement(kind.model, changed, unique=kind.identity) for kind, changed in rows]
        statements.append(Statement(Change, changes))
        with transaction.atomic():
            lock_configuration()
            if _last_change(kinds) == last:
                _write(statements)
                return result
    with transaction.atomic():
        return work()


def _last_change(kinds: Collection[Kind]) -> int | None:
    changes = Change.objects.filter(kind__in=[kind.kind for kind in kinds])
    return changes.order_by("-id").values_list("id", flat=True).first()


def _changed(kind: Kind, changes: list[Change]) -> list[Configured]:
    names = {change.name for change in changes if change.kind == kind.kind}
    return [row for row in kind.rows() if getattr(row, kind.identity) in names]


def _write(statements: list[Statement]) -> None:
    for statement in statements:
        statement.execute()
