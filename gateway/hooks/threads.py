"""Threads for plain hooks: a bounded number for each, and never one that keeps the process from stopping.

A thread cannot be stopped from outside. A call that misses its deadline keeps its thread until it returns; until then
the hook has one thread less. Once all of a hook's threads are held that way its calls are refused at once, while the
threads of other hooks are untouched. Threads are daemons: a process stops without waiting for them, which the thread
pool of the standard library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

QUEUE_MAX = 500
"""Calls of one hook that may wait for a thread."""
THREAD_IDLE_S = 10.0


class DeadlineMissed(Exception):
    """The call did not return in time."""


class NoThreadLeft(Exception):
    """The call was not started: all threads are held by calls that missed their deadline, or too many calls wait."""


class RaisedOutcome:
    """An exception carried as a value: a future or task that raises SystemExit would end the event loop."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @staticmethod
    def unpack(outcome: Any) -> Any:
        """Return the outcome, or raise the exception that it carries; those that end a process as RuntimeError."""
        if not isinstance(outcome, RaisedOutcome):
            return outcome
        error = outcome.error
        if isinstance(error, Exception):
            raise error
        raise RuntimeError(f"raised {type(error).__name__}").with_traceback(error.__traceback__)


class HookThreads:
    """The threads of one plain hook: started when needed, ended when idle, at most ``threads_max``."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._calls: queue.SimpleQueue[_ThreadCall] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._held = 0

    @property
    def held(self) -> int:
        """How many threads are held by calls that missed their deadline and have not returned."""
        return self._held

    async def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """Run the function on a thread. Raises what it raises, DeadlineMissed and NoThreadLeft."""
        if self._held >= self._threads_max or self._calls.qsize() >= QUEUE_MAX:
            raise NoThreadLeft
        call = _ThreadCall(function, arguments)
        with self._lock:
            self._calls.put(call)
            if self._idle < self._calls.qsize() and self._threads < self._threads_max:
                self._threads += 1
                threading.Thread(target=self._work, name=f"hook {self._name}", daemon=True).start()
        try:
            await asyncio.wait({call.done}, timeout=timeout_s)
        finally:
            if not call.done.done():
                with self._lock:
                    self._held += call.abandon()
        if not call.done.done():
            raise DeadlineMissed
        return RaisedOutcome.unpack(call.done.result())

    def _work(self) -> None:
        """Run calls until there has been none for a while."""
        while True:
            with self._lock:
                self._idle += 1
            call = None
            with contextlib.suppress(queue.Empty):
                call = self._calls.get(timeout=THREAD_IDLE_S)
            with self._lock:
                self._idle -= 1
                if call is None and self._calls.empty():
                    self._threads -= 1
                    return
            if call is not None:
                self._run(call)

    def _run(self, call: _ThreadCall) -> None:
        with self._lock:
            if not call.begin():
                return
        outcome = call.outcome()
        with self._lock:
            if call.is_abandoned:
                self._held -= 1
                return
            call.has_ended = True
        call.deliver(outcome)


class _ThreadCall:
    """One call of a plain hook. Its state is guarded by the lock of its HookThreads."""

    __slots__ = ("_arguments", "_function", "_has_begun", "_loop", "done", "has_ended", "is_abandoned")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self._loop.create_future()
        self._has_begun = False
        self.has_ended = False
        self.is_abandoned = False

    def begin(self) -> bool:
        """Return whether the call should run: not if its deadline passed while it waited for a thread."""
        self._has_begun = not self.is_abandoned
        return self._has_begun

    def abandon(self) -> bool:
        """Stop waiting for the call; return whether it holds a thread from now on."""
        if self.has_ended:
            return False
        self.is_abandoned = True
        return self._has_begun

    def outcome(self) -> Any:
        try:
            return self._function(*self._arguments)
        except BaseException as error:
            return RaisedOutcome(error)

    def deliver(self, outcome: Any) -> None:
        # A closed loop raises RuntimeError: the process is stopping and nobody waits for the outcome.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: Any) -> None:
        if not self.done.done():
            self.done.set_result(outcome)
