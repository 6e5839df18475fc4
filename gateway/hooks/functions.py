"""Functions of operators: found by ``module:name``, run with a deadline, and kept from harming anybody else's calls.

An ``async`` function runs on the event loop, as a task of its own. A plain one runs on a few daemon threads that are
that function's alone; one that does not come back in time is interrupted where it is in Python code, and left behind
where it is not. A function that keeps missing its deadline is not called for a while: its calls are refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import inspect
import logging
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from gateway.hooks.api import Refuse
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.config import Config

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
NAME_MAX_CHARS = 200
OWN = frozenset(
    {
        "analytics", "apimgmt", "audit", "configuration", "consumers", "events", "gateway", "jobs", "keys", "operators",
        "routes",
    }
)  # fmt: skip
"""Our own packages: nothing in them was written to be called so."""
TIMEOUTS_MAX = 5
"""So many missed deadlines in a row, and a function rests."""
REST_S = 1.0
LEFT_BEHIND_MAX = 50
"""Tasks of an ``async`` function that do not even end when they are cancelled."""
QUEUE_MAX = 500
THREAD_IDLE_S = 10.0
LOG_EVERY_S = 60.0


def load(name: Any) -> Callable[..., Any]:
    """Find a function. Raises ValueError that says what to mend.

    Not of the standard library nor of the product; of the modules that ``HOOK_MODULES`` allows, where it is set.
    """
    if not isinstance(name, str) or len(name) > NAME_MAX_CHARS or not NAME.fullmatch(name):
        raise ValueError("Name a function as module:name.")
    module_name, _, attribute = name.partition(":")
    _check_allowed(module_name)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever it raises ends no process of ours
        raise ValueError(f"The module {module_name} cannot be imported: {type(error).__name__}: {error}.") from None
    found = getattr(module, attribute, None)
    if not callable(found) or inspect.isclass(found):
        raise ValueError(f"{module_name} has no function {attribute}.")
    return found  # type: ignore[no-any-return]


def _check_allowed(module_name: str) -> None:
    package = module_name.partition(".")[0]
    if package in sys.stdlib_module_names or package in OWN:
        raise ValueError(f"{package} is not a module of yours: no function of it can be named.")
    allowed = [part.strip() for part in os.environ.get("HOOK_MODULES", "").split(",") if part.strip()]
    if allowed and not any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in allowed):
        raise ValueError(f"HOOK_MODULES does not allow {module_name}; it allows {', '.join(allowed)}.")


class _Late(Exception):
    """The function has not come back in time."""


class _Resting(Exception):
    """The function is not called now."""


class _Interrupted(BaseException):
    """Raised inside a plain function that takes too long."""


class Function:
    """One function of an operator. Calling it gives what it returned, or raises Refused ``internal``."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.faults: Counter[str] = Counter()
        """How often it failed, by cause."""
        self._function = function
        call = getattr(function, "__call__", None)  # noqa: B004 - an object's own, to see whether that is async
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
        self._pool = _Pool(name)
        self._left_behind = 0
        self._timeouts = 0
        self._rests_until = 0.0
        self._told: dict[str, tuple[float, int]] = {}

    async def __call__(self, config: Config, *arguments: Any) -> Any:
        """Call it. Raises Refused ``internal`` where it fails, and what its own Refuse says."""
        try:
            if time.monotonic() < self._rests_until:
                raise _Resting
            run = self._run_async if self._is_async else self._run_plain
            result = await run(config, arguments)
        except Refuse as refuse:
            self._timeouts = 0
            return refuse
        except _Late:
            self._missed()
            raise self.fault(
                f"has not come back within {config.hook_timeout_s:g} s", cause="function-timeout"
            ) from None
        except _Resting:
            what = "is not called for a while: it keeps missing its deadline"
            raise self.fault(what, cause="function-resting") from None
        except Exception as error:
            raise self.fault("has failed", error, cause="function-raised") from None
        self._timeouts = 0
        return result

    def nonsense(self, what: str) -> Refused:
        """Say that it returned what cannot be used."""
        return self.fault(what, cause="function-nonsense")

    def fault(self, what: str, error: Exception | None = None, *, cause: str) -> Refused:
        """Count a fault, and log it: the same one at most once a minute, with how often it came."""
        self.faults[cause] += 1
        which = f"{cause} {what} {_place(error)}"
        at, times = self._told.get(which, (float("-inf"), 0))
        now = time.monotonic()
        if now - at < LOG_EVERY_S:
            self._told[which] = (at, times + 1)
        else:
            if len(self._told) >= 100:
                self._told.clear()
            self._told[which] = (now, 0)
            again = f" ({times} times more since it was last told)" if times else ""
            logger.error("the function %s %s%s", self.name, what, again, exc_info=error)
        return Refused(Reason.INTERNAL, cause=cause)

    def _missed(self) -> None:
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_MAX:
            self._rests_until = time.monotonic() + REST_S
            self._timeouts = TIMEOUTS_MAX - 1  # one more after its rest, and it rests again

    async def _run_async(self, config: Config, arguments: tuple[Any, ...]) -> Any:
        if self._left_behind >= LEFT_BEHIND_MAX:
            raise _Resting
        task = asyncio.create_task(_caught(self._function, arguments), name=f"function {self.name}")
        try:
            await asyncio.wait({task}, timeout=config.hook_timeout_s)
        finally:
            if not task.done():
                task.cancel()
                self._left_behind += 1
                task.add_done_callback(self._came_back)
        if not task.done():
            raise _Late
        if task.cancelled():
            raise RuntimeError("cancelled itself")
        return _unpacked(task.result())

    def _came_back(self, task: asyncio.Task[Any]) -> None:
        self._left_behind -= 1
        if not task.cancelled():
            task.exception()

    async def _run_plain(self, config: Config, arguments: tuple[Any, ...]) -> Any:
        result = await self._pool.run(self._function, arguments, config.hook_timeout_s, config.hook_threads)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("a plain function returned a coroutine")
        return result


def _place(error: Exception | None) -> str:
    """Say what was raised and where: faults of one place are one fault."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__} {at}"


_functions: WeakValueDictionary[str, Function] = WeakValueDictionary()


def named(name: Any) -> Function:
    """Give the function of that name: one for all policies that name it. Raises ValueError as ``load`` does."""
    found = load(name)
    known = _functions.get(name)
    if known is None or known._function is not found:  # noqa: SLF001
        known = _functions[name] = Function(name, found)
    return known


class _Raised:
    """What was raised, carried as a value: a task that raises SystemExit would end the event loop."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _caught(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return await function(*arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return _Raised(error)


def _unpacked(result: Any) -> Any:
    if not isinstance(result, _Raised):
        return result
    error = result.error
    raise (
        error
        if isinstance(error, Exception)
        else RuntimeError(f"raised {type(error).__name__}").with_traceback(error.__traceback__)
    )


class _Job:
    """One call of a plain function."""

    __slots__ = ("_lock", "_thread", "arguments", "done", "function", "is_left", "loop")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()
        self.is_left = False
        """Nobody waits for it any more."""
        self._lock = threading.Lock()
        self._thread: int | None = None

    def run(self) -> bool:
        """Run it on this thread. False where nobody had waited for it to begin."""
        with self._lock:
            if self.is_left:
                return False
            self._thread = threading.get_ident()
        try:
            result = self.function(*self.arguments)
        except BaseException as error:
            result = _Raised(error)
        with self._lock:
            self._thread = None
            is_left = self.is_left
        if not is_left:
            # A loop that is closed says RuntimeError: the process ends, and nobody waits.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._tell, result)
        return True

    def leave(self) -> bool:
        """Wait for it no more, and interrupt it. Says whether it is running."""
        with self._lock:
            self.is_left = True
            if self._thread is None:
                return False
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Interrupted))
            return True

    def _tell(self, result: Any) -> None:
        if not self.done.done():
            self.done.set_result(result)


class _Pool:
    """The threads of one plain function: made when needed, gone when idle, and never more than a few."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._stuck = 0
        """Threads whose call nobody waits for any more, and which still run it."""

    async def run(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float, threads_max: int
    ) -> Any:
        """Run the function on a thread. Raises what it raises, _Late, and _Resting where no thread comes back."""
        if self._stuck >= threads_max or self._jobs.qsize() >= QUEUE_MAX:
            raise _Resting
        job = _Job(function, arguments)
        with self._lock:
            self._jobs.put(job)
            if self._idle < self._jobs.qsize() and self._threads < threads_max:
                self._threads += 1
                threading.Thread(target=self._work, name=f"function {self._name}", daemon=True).start()
        try:
            await asyncio.wait({job.done}, timeout=timeout_s)
        finally:
            if not job.done.done() and job.leave():
                with self._lock:
                    self._stuck += 1
        if not job.done.done():
            raise _Late
        return _unpacked(job.done.result())

    def _work(self) -> None:
        """Take calls until there are none for a while, or one was left behind: an interrupt may come late."""
        while True:
            with self._lock:
                self._idle += 1
            job = None
            with contextlib.suppress(queue.Empty):
                job = self._jobs.get(timeout=THREAD_IDLE_S)
            with self._lock:
                self._idle -= 1
                if job is None and self._jobs.empty():
                    self._threads -= 1
                    return
            if job is not None and not self._ran(job):
                return

    def _ran(self, job: _Job) -> bool:
        """Run one call. False where this thread must end."""
        has_begun = True
        with contextlib.suppress(_Interrupted):
            has_begun = job.run()
        if not (has_begun and job.is_left):
            return True
        with self._lock:
            self._threads -= 1
            self._stuck -= 1
        return False
