"""Supervises processes: forks them, restarts those that end, and stops all of them in order.

It has one thread and no event loop, so that a fork is safe and has everything imported already.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from apimgmt.launcher import processes

logger = logging.getLogger(__name__)

CHECK_S = 0.05
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.5
STEADY_AFTER_S = 10.0
"""A process that ran for so long is restarted after the first delay; otherwise the delay doubles."""


def _one_byte() -> mmap.mmap:
    return mmap.mmap(-1, 1)


@dataclass(slots=True)
class Supervised:
    """A process to keep running."""

    kind: str
    """Its key in ready.json."""
    name: str
    run: Callable[[Callable[[], None]], None] | None = None
    """Runs in the forked child, and calls its argument once it serves. None for a program."""
    command: tuple[str, ...] = ()
    stop_within_s: float = 10.0
    listening: socket.socket | None = None
    """The listening socket that it serves."""
    pid: int = 0
    began_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    start_at: float = 0.0
    _mark: mmap.mmap = field(default_factory=_one_byte)
    """Memory shared with the child, which sets it once it serves."""

    @property
    def is_serving(self) -> bool:
        """Whether the current process has reported that it serves."""
        return bool(self.pid) and self._mark[0] == 1

    def serves(self) -> None:
        """Report, from the child, that it serves."""
        self._mark[0] = 1

    def starts(self) -> None:
        """Record a start; the process does not serve yet."""
        self.began_at = time.monotonic()
        self._mark[0] = 0


@dataclass(slots=True)
class Supervisor:
    """All processes of one `up`, in the order of their start."""

    logs: Path
    report: Callable[[str, str], None]
    """Called with a process's name and what happened to it."""
    changed: Callable[[], None] = lambda: None
    """Called after a process was restarted."""
    held: tuple[int, ...] = ()
    """Descriptors that programs inherit; forked children inherit all."""
    hurry: Callable[[], bool] = lambda: False
    """Returns whether to stop without waiting."""
    listening: list[socket.socket] = field(default_factory=list)
    """All listening sockets. A child closes those it does not serve, so that connections are refused once their
    processes have ended."""
    all: list[Supervised] = field(default_factory=list)
    is_stopping: bool = False

    def start(self, supervised: Supervised) -> None:
        """Start a process and keep it running."""
        self.all.append(supervised)
        self._spawn(supervised)

    def check(self) -> None:
        """Reap processes that have ended and start those that are due. Must be called often."""
        for supervised, status in self._ended():
            now = time.monotonic()
            if now - supervised.began_at > STEADY_AFTER_S:
                supervised.pause_s = FIRST_PAUSE_S
            supervised.start_at = now + supervised.pause_s
            supervised.pause_s = min(supervised.pause_s * 2, LONGEST_PAUSE_S)
            self.report(supervised.name, f"ended ({_describe(status)}) and is restarted")
        due = [one for one in self.all if not one.pid and one.start_at <= time.monotonic()]
        for supervised in due:
            self._spawn(supervised)
        if due:
            self.changed()

    def restart(self, kind: str) -> None:
        """Terminate the processes of a kind; :meth:`check` starts them again."""
        for one in self.all:
            if one.kind == kind:
                _signal(one, signal.SIGTERM)

    def pids(self, kind: str) -> list[int]:
        """Return the process ids of a kind."""
        return [one.pid for one in self.all if one.kind == kind and one.pid]

    def not_serving(self) -> list[str]:
        """Return the names of forked processes that do not serve yet."""
        return [one.name for one in self.all if one.run is not None and not one.is_serving]

    def stop(self, *kinds: str) -> None:
        """Stop the processes of these kinds together: SIGTERM, then SIGKILL for those that do not end in time."""
        self.is_stopping = True
        leaving = [one for one in self.all if one.kind in kinds]
        for one in leaving:
            if one.listening is not None:
                one.listening.close()  # once the child closes its copy too, connections are refused
            _signal(one, signal.SIGTERM)
        ends_at = time.monotonic() + max((one.stop_within_s for one in leaving), default=0)
        while any(one.pid for one in leaving) and time.monotonic() < ends_at and not self.hurry():
            self._ended()
            time.sleep(CHECK_S / 2)
        for one in leaving:
            if one.pid:
                self.report(one.name, "did not end in time and is killed")
                _signal(one, signal.SIGKILL)
        while any(one.pid for one in leaving):
            self._ended()
            time.sleep(CHECK_S / 2)
        self.all = [one for one in self.all if one not in leaving]

    def _spawn(self, supervised: Supervised) -> None:
        supervised.starts()
        log = self.logs / f"{supervised.name}.log"
        parent = os.getpid()
        if supervised.run is None:
            supervised.pid = _program(supervised.command, log, self.held, parent)
            return
        others = [one for one in self.listening if one is not supervised.listening]
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the child has set its own handlers, the inherited ones would swallow its signals.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        supervised.pid = os.fork()
        if supervised.pid == 0:
            _child(supervised, log, parent, others)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _ended(self) -> list[tuple[Supervised, int]]:
        """Reap and return the processes that have ended."""
        ended = []
        for supervised in self.all:
            if not supervised.pid:
                continue
            try:
                pid, status = os.waitpid(supervised.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = supervised.pid, 0
            if pid:
                supervised.pid = 0
                ended.append((supervised, status))
        return ended


def _signal(supervised: Supervised, number: int) -> None:
    if supervised.pid:
        try:
            os.kill(supervised.pid, number)
        except ProcessLookupError:
            supervised.pid = 0


def _child(supervised: Supervised, log: Path, parent: int, others: list[socket.socket]) -> None:
    """Run a forked process to its end; never returns."""
    code = 1
    try:
        processes.enter(supervised.name, log, parent)
        for listening in others:
            listening.close()
        assert supervised.run is not None, "a program is not forked"
        supervised.run(supervised.serves)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        logger.exception("%s failed", supervised.name)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _program(command: tuple[str, ...], log: Path, held: tuple[int, ...], parent: int) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603 - the command of an engine
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=held,
            preexec_fn=partial(processes.follow, parent),  # noqa: PLW1509 - this process is single-threaded
        )
    finally:
        os.close(descriptor)
    process.returncode = 0  # reaped by waitpid above, not by Popen
    return process.pid


def _describe(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
