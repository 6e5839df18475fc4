"""Starts servers on their core, and reads what they use: CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 20
SAID_BYTES = 600
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(command: list[str], port: int, core: int) -> Iterator[int]:
    """Run a server until it listens, on one core; yields its process id."""
    environment = os.environ | {"GOMAXPROCS": "1"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=said, env=environment
        )
        try:
            if not _listens(port, process):
                said.seek(0)
                text = said.read()[-SAID_BYTES:].decode(errors="replace")
                raise RuntimeError(f"{command[0]} does not listen on port {port}: {text}")
            yield process.pid
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, and kill it if it does not leave."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(map(int, children.read_text().split()))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the user and system time that these processes have used."""
    return sum(_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids) / TICKS_PER_S


def rss_kib(pids: Iterable[int]) -> int:
    """Return the resident memory of these processes."""
    return sum(_resident(Path(f"/proc/{pid}/status").read_text()) for pid in pids)


def _ticks(stat: str) -> int:
    """Return utime + stime of ``/proc/PID/stat``, whose second field may contain spaces."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident(status: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process that was just started comes to listen."""
    ends_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)
    return False
