"""Runs hooks with a deadline, so that one that fails or hangs affects only the calls that use it.

An ``async`` hook runs on the event loop, as a task of its own. A plain one runs on a few threads of its own
(:mod:`gateway.hooks.threads`). A hook that keeps missing its deadline is suspended for a while: its calls are refused
at once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from gateway.concurrency.log_throttle import LogThrottle
from gateway.concurrency.stopping import discard
from gateway.hooks.api import Refuse
from gateway.hooks.threads import DeadlineMissed, HookThreads, NoThreadLeft, RaisedOutcome
from gateway.refusals import Reason, Refused

logger = logging.getLogger(__name__)

TIMEOUTS_MAX = 5
"""After so many missed deadlines in a row a hook is suspended."""
SUSPENDED_S = 1.0
ABANDONED_MAX = 50
"""Tasks of an ``async`` hook that do not end though they were cancelled."""
LOGGED_FAULTS_MAX = 100


class HookFunctions:
    """The hooks of one process. Policies that name the same function share its threads and its suspension."""

    def __init__(self, *, timeout_s: float, threads_each: int) -> None:
        self._timeout_s = timeout_s
        self._threads_each = threads_each
        self._functions: WeakValueDictionary[str, HookFunction] = WeakValueDictionary()
        """Those that a policy holds."""

    def function(self, name: str, function: Callable[..., Any]) -> HookFunction:
        """Return the hook of that name."""
        cached = self._functions.get(name)
        if cached is None or cached.wrapped is not function:
            threads = HookThreads(name, self._threads_each)
            cached = self._functions[name] = HookFunction(name, function, threads, self._timeout_s)
        return cached


class HookFunction:
    """One hook. Calling it returns what the function returned, or raises Refused ``internal``."""

    def __init__(self, name: str, function: Callable[..., Any], threads: HookThreads, timeout_s: float) -> None:
        self.name = name
        self.wrapped = function
        self.faults: Counter[str] = Counter()
        """How often it failed, by cause."""
        call = getattr(function, "__call__", None)  # noqa: B004 - of an object that is callable, to see if it is async
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
        self._threads = threads
        self._timeout_s = timeout_s
        self._abandoned = 0
        """Cancelled tasks that have not ended."""
        self._timeouts = 0
        self._suspended_until = 0.0
        self._throttle = LogThrottle(keys_max=LOGGED_FAULTS_MAX)

    @property
    def held_threads(self) -> int:
        """How many of its threads are held by calls that missed their deadline and have not returned."""
        return self._threads.held

    async def __call__(self, *arguments: Any) -> Any:
        """Call the function; a Refuse that it raises is returned. Raises Refused ``internal`` where it fails."""
        try:
            if time.monotonic() < self._suspended_until:
                raise NoThreadLeft
            run = self._run_async if self._is_async else self._run_plain
            result = await run(arguments)
        except Refuse as refuse:
            self._timeouts = 0
            return refuse
        except DeadlineMissed:
            self._count_timeout()
            what = f"did not return within {self._timeout_s:g} s"
            raise self._fault(what, cause="function-timeout") from None
        except NoThreadLeft:
            what = "is suspended for a while: it keeps missing its deadline, or its calls do not return"
            raise self._fault(what, cause="function-resting") from None
        except Exception as error:
            raise self._fault("raised an exception", error, cause="function-raised") from None
        self._timeouts = 0
        return result

    def invalid_result(self, what: str) -> Refused:
        """Return the refusal for a result that cannot be used."""
        return self._fault(what, cause="function-nonsense")

    def _fault(self, what: str, error: Exception | None = None, *, cause: str) -> Refused:
        """Count a fault, and log it unless it was logged within the last minute."""
        self.faults[cause] += 1
        suffix = self._throttle.suffix((cause, what, _place(error)))
        if suffix is not None:
            held = f"; {self.held_threads} of its threads are held by such calls" if self.held_threads else ""
            logger.error("the function %s %s%s%s", self.name, what, held, suffix, exc_info=error)
        return Refused(Reason.INTERNAL, cause=cause)

    def _count_timeout(self) -> None:
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_MAX:
            self._suspended_until = time.monotonic() + SUSPENDED_S
            self._timeouts = TIMEOUTS_MAX - 1  # one more miss after the suspension suspends it again

    async def _run_async(self, arguments: tuple[Any, ...]) -> Any:
        if self._abandoned >= ABANDONED_MAX:
            raise NoThreadLeft
        task = asyncio.create_task(_outcome(self.wrapped, arguments), name=f"hook {self.name}")
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            if not task.done():
                task.cancel()
                self._abandoned += 1
                task.add_done_callback(self._has_ended)
        if not task.done():
            raise DeadlineMissed
        if task.cancelled():
            raise RuntimeError("cancelled itself")
        return RaisedOutcome.unpack(task.result())

    def _has_ended(self, task: asyncio.Task[Any]) -> None:
        self._abandoned -= 1
        discard(task)

    async def _run_plain(self, arguments: tuple[Any, ...]) -> Any:
        result = await self._threads.run(self.wrapped, arguments, self._timeout_s)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("a plain function returned a coroutine")
        return result


async def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return await function(*arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return RaisedOutcome(error)


def _place(error: Exception | None) -> str:
    """Return the type of an exception and the line that raised it: the same place is the same fault."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__} {at}"
