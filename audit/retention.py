"""Shortens the audit log where an operator bounds it: what goes is exported first, and a checkpoint tells from when on
the log is complete.

Of each object, the last change before the checkpoint stays: from it and the later ones follows the state of every
instant since. What changed no object, such as a sign-in, goes entirely, and so does the deletion of an object.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from audit.export import export
from audit.models import Action, Change, ChangeQuerySet, Checkpoint

logger = logging.getLogger(__name__)

BATCH = 1000
OF_OBJECTS = (Action.CREATED, Action.UPDATED, Action.DELETED)


def keep_changes(now: datetime) -> Iterator[int]:
    """Export and delete changes that are older than the bound, and yield the number of each batch.

    The log is shortened once a day, at midnight in UTC.
    """
    days = settings.RETENTION.audit_days
    if not days:
        return
    until = (now - timedelta(days=days)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while True:
        changes = list(superseded(until)[:BATCH])
        if not changes:
            return
        name = export(changes, Path(settings.RETENTION_AUDIT_DIR))
        with transaction.atomic():
            Checkpoint.advance(until, changes=len(changes), file=name)
            Change.objects.filter(pk__in=[change.pk for change in changes]).remove_exported()
        logger.info("audit: %d changes before %s were exported to %s", len(changes), until.date(), name)
        yield len(changes)


def superseded(until: datetime) -> ChangeQuerySet:
    """Return the changes before an instant without which the configuration of every later one is known, in order."""
    old = Change.objects.filter(at__lt=until, published_at__isnull=False)
    of_same_object = Change.objects.filter(kind=OuterRef("kind"), name=OuterRef("name"))
    later = of_same_object.filter(pk__gt=OuterRef("pk"), at__lt=until)
    # A deletion hides what was recorded before it; a clock that was set back may have recorded that for later.
    earlier = of_same_object.filter(pk__lt=OuterRef("pk"))
    is_needless = ~Q(action__in=OF_OBJECTS) | Exists(later) | (Q(action=Action.DELETED) & ~Exists(earlier))
    return old.filter(is_needless).order_by("pk")
