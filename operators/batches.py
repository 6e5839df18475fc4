"""Deletes rows in small batches, so that other writers wait briefly, and counts what was removed to keep a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from prometheus_client import Counter

BATCH = 1000
"""Rows of one transaction. SQLite has one writer at a time, and this many are deleted in some 10 ms."""
REMOVED = Counter(
    "apimgmt_retention_removed",
    "What was removed, or merged into coarser rows, to keep the bounds of RETENTION_* settings.",
    ("what",),
    registry=None,
)
"""Registered by the processes that report metrics. ``what`` is a closed list: docs/retention.md names each."""


def delete_in_batches(rows: QuerySet[Any], most: int | None = None) -> Iterator[int]:
    """Delete these rows, in their order, and yield the number of each batch; at most ``most`` of them."""
    left = most
    while left is None or left > 0:
        keys = list(rows.values_list("pk", flat=True)[: BATCH if left is None else min(BATCH, left)])
        if not keys:
            return
        with transaction.atomic():
            rows.model._default_manager.filter(pk__in=keys).delete()
        yield len(keys)
        left = None if left is None else left - len(keys)


def delete_excess(rows: QuerySet[Any], most: int) -> Iterator[int]:
    """Delete the first of these rows, in their order, until ``most`` are left; 0 is no bound."""
    if most:
        yield from delete_in_batches(rows, max(0, rows.count() - most))
