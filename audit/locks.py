"""A lock for writes whose check reads other rows than the one that is written."""

from __future__ import annotations

from django.db import connection

CONFIGURATION = 0x61706967
"""The number of PostgreSQL's advisory lock."""


def lock_configuration() -> None:
    """Wait for every other transaction that holds this lock, and hold it until the current one ends.

    Without it, PostgreSQL lets two transactions pass the same check and both insert: two routes with one path, two
    channels that overlap. Take it before any row is locked, or two transactions may wait for each other. SQLite's
    transactions are IMMEDIATE (see ``settings.DATABASES``) and run one at a time anyway.
    """
    assert connection.in_atomic_block, "the lock is released when the transaction ends"
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CONFIGURATION])
