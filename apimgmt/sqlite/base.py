"""Django's backend for SQLite, whose writers get their turn soon.

SQLite has one writer at a time. Who waits for it asks at growing distances, 100 ms at last; among several that write
often, one may go away empty-handed again and again, for a second and more. Here it asks every few milliseconds.
"""

from __future__ import annotations

import time

from django.db import OperationalError
from django.db.backends.sqlite3.base import DatabaseWrapper as DjangosWrapper

ASK_AGAIN_S = 0.004
BUSY = "database is locked"


class DatabaseWrapper(DjangosWrapper):
    """Begins a transaction as soon as the write lock is free, within the configured timeout."""

    def _start_transaction_under_autocommit(self) -> None:
        timeout_s = self.settings_dict["OPTIONS"].get("timeout", 5)
        ends_at = time.monotonic() + timeout_s
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    super()._start_transaction_under_autocommit()  # type: ignore[misc]  # the stubs lack it
                except OperationalError as error:
                    if str(error) != BUSY or time.monotonic() >= ends_at:
                        raise
                    time.sleep(ASK_AGAIN_S)
                else:
                    return
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")
