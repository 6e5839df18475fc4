"""Deletes operators' tokens some time after they have expired or were revoked, with a record in the audit log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q

from accounts.models import Token
from audit import recording

BATCH = 50
BY = "retention"


def keep_tokens(now: datetime) -> Iterator[int]:
    """Delete the tokens that have long been of no use, and yield the number of each batch."""
    days = settings.RETENTION.tokens_days
    before = now - timedelta(days=days)
    useless = Token.objects.filter(Q(expires_at__lt=before) | Q(revoked_at__lt=before)).order_by("id")
    while days and (tokens := list(useless.select_related("account")[:BATCH])):
        for token in tokens:
            with contextlib.suppress(ValidationError):  # another process was faster
                recording.delete("token", token, token.prefix, by=BY)
        yield len(tokens)
