"""Ends a worker that runs but no longer takes tasks from the queue, so that its supervisor restarts it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

CHECK_S = 5.0
STUCK_AFTER_S = 30.0
"""A periodic task is enqueued every two seconds, so an idle worker takes a task long before this."""
STUCK = 70
"""Exit code (EX_SOFTWARE)."""


def waiting(application: Any) -> int:
    """Return how many messages are in the queue. Raises an error of the client if the broker is unavailable."""
    with application.connection_for_read(connect_timeout=CHECK_S) as connection:
        queue = application.conf.task_default_queue
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


class WorkerWatch(threading.Thread):
    """A thread of the worker: if the worker is idle, it checks whether messages stay in the queue."""

    def __init__(self, waiting: Callable[[], int], end: Callable[[int], Any] = os._exit) -> None:
        super().__init__(name="worker watch", daemon=True)
        self._waiting = waiting
        self._end = end
        self._running = 0
        self._lock = threading.Lock()
        self._took_at = time.monotonic()
        self._waited_since: float | None = None

    def took(self, **signal: Any) -> None:
        """Record that a message was taken from the queue."""
        self._took_at = time.monotonic()

    def begins(self, **signal: Any) -> None:
        """Record that a task has started."""
        with self._lock:
            self._running += 1

    def ends(self, **signal: Any) -> None:
        """Record that a task has ended."""
        with self._lock:
            self._running -= 1
        self._took_at = time.monotonic()

    def is_stuck(self, now: float) -> bool:
        """Check the queue and return whether the worker is stuck: idle, while messages have waited all the time."""
        if self._running > 0 or not self._has_waiting():
            self._waited_since = None
            return False
        if self._waited_since is None or self._took_at > self._waited_since:
            self._waited_since = now
        return now - self._waited_since >= STUCK_AFTER_S

    def run(self) -> None:
        """Check regularly, and end the process once it is stuck."""
        while True:
            time.sleep(CHECK_S)
            if self.is_stuck(time.monotonic()):
                logger.error("the worker takes no tasks although tasks are waiting; it is restarted")
                self._end(STUCK)
                return

    def _has_waiting(self) -> bool:
        try:
            return self._waiting() > 0
        except Exception as error:
            logger.debug("the queue's length could not be read: %s", type(error).__name__)
            return False
