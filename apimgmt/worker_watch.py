"""Ends a worker that lives but takes nothing, though work waits for it: its supervisor starts another."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

LOOK_S = 5.0
STUCK_AFTER_S = 30.0
"""The sweep of jobs comes every two seconds: a worker that has hands free takes something long before."""
STUCK = 70
"""Exit code (EX_SOFTWARE)."""


def waiting(application: Any) -> int:
    """Say how many messages wait in the queue. Raises what the broker's client does where it is away."""
    with application.connection_for_read(connect_timeout=LOOK_S) as connection:
        queue = application.conf.task_default_queue
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


class WorkerWatch(threading.Thread):
    """Watches from inside: where nothing runs and nothing was taken for a while, it asks what waits."""

    def __init__(self, waiting: Callable[[], int], end: Callable[[int], Any] = os._exit) -> None:
        super().__init__(name="worker watch", daemon=True)
        self._waiting = waiting
        self._end = end
        self._running = 0
        self._lock = threading.Lock()
        self._took_at = time.monotonic()
        self._waited_since: float | None = None

    def took(self, **signal: Any) -> None:
        """A message was taken from the queue."""
        self._took_at = time.monotonic()

    def begins(self, **signal: Any) -> None:
        """A task begins to run."""
        with self._lock:
            self._running += 1

    def ends(self, **signal: Any) -> None:
        """A task has run."""
        with self._lock:
            self._running -= 1
        self._took_at = time.monotonic()

    def look(self, now: float) -> bool:
        """Say whether it is stuck: idle, while something has waited at each look for so long."""
        if self._running > 0 or not self._something_waits():
            self._waited_since = None
            return False
        if self._waited_since is None or self._took_at > self._waited_since:
            self._waited_since = now
        return now - self._waited_since >= STUCK_AFTER_S

    def run(self) -> None:
        """Look until it is stuck."""
        while True:
            time.sleep(LOOK_S)
            if self.look(time.monotonic()):
                logger.error("the worker takes nothing, though work waits for it: it is started again")
                self._end(STUCK)
                return

    def _something_waits(self) -> bool:
        try:
            return self._waiting() > 0
        except Exception as error:
            logger.debug("the broker does not say what waits: %s", type(error).__name__)
            return False
