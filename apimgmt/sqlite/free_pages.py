"""Returns the pages of deleted rows to the file system: a file of SQLite does not shrink by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from django.db import OperationalError, connection, transaction

logger = logging.getLogger(__name__)

PAGES = 500
"""Pages of one step: 2 MB, which are moved in some milliseconds."""
SPARE_PAGES = 2000
"""Free pages that stay in the file, for the next rows."""
INCREMENTAL = 2


def return_free_pages(now: datetime) -> Iterator[int]:
    """Return the free pages of an SQLite file, and yield the number of each step. Others reuse theirs."""
    while connection.vendor == "sqlite" and pragma("auto_vacuum") == INCREMENTAL:
        free = pragma("freelist_count")
        if free <= SPARE_PAGES:
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
        yield free - pragma("freelist_count")


def ensure_incremental() -> bool:
    """Rewrite a file that is new, or that an earlier version created, so that its free pages can be returned.

    Where the disk has no room for that the file is left as it is; it reuses its free pages, but does not shrink.
    """
    if connection.vendor != "sqlite" or pragma("auto_vacuum") == INCREMENTAL:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            cursor.execute("VACUUM")
    except OperationalError as error:
        logger.warning("the database file cannot be rewritten, and will not shrink: %s", error)
        return False
    return True


def pragma(name: str) -> int:
    """Return a number that SQLite keeps about the file."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {name}")
        return int(cursor.fetchone()[0])
