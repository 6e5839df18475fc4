"""Write many changes in a short transaction: they are prepared in memory first, and then written in bulk.

To validate an object and to save and record it by itself takes some milliseconds. Other writers would wait for the
whole of it, and the management API would refuse them. Only the writing itself is done under the lock: the same rows,
and the same records of the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import transaction

from audit.locks import lock_configuration
from audit.models import Change
from configuration.bulk_rows import Statement
from configuration.rows import IMPORTED

ATTEMPTS = 3
READ = (*(kind.kind for kind in IMPORTED), "schema")
"""The kinds of objects on which an import depends."""
Result = TypeVar("Result")


def staged(prepare: Callable[[], tuple[Result, Sequence[Statement]]]) -> Result:
    """Write what a function prepares from the current objects, in one short transaction.

    Where somebody else changes an object of these kinds meanwhile, it is called again; after some attempts under the
    lock of the configuration itself. Raises what the function raises; then nothing is written.
    """
    for _ in range(ATTEMPTS):
        last = _last_change()
        result, statements = prepare()
        if not statements:
            return result
        with transaction.atomic():
            lock_configuration()
            if _last_change() == last:
                _write(statements)
                return result
    with transaction.atomic():
        lock_configuration()
        result, statements = prepare()
        _write(statements)
    return result


def _last_change() -> int | None:
    return Change.objects.filter(kind__in=READ).order_by("-id").values_list("id", flat=True).first()


def _write(statements: Sequence[Statement]) -> None:
    for statement in statements:
        statement.execute()
