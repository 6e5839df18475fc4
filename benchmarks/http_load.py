"""HTTP load by wrk, pinned to the load's core."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from benchmarks.peers import LOAD_CORE, Peer

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run came to."""

    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def measure(peer: Peer, seconds: int) -> Measured:
    """Send GET requests with the peer's key over keep-alive connections for so long, after a short warm-up."""
    _wrk(peer, 1)
    return _read(_wrk(peer, seconds))


def _wrk(peer: Peer, seconds: int) -> str:
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is not installed (Debian: apt-get install wrk)")
    command = ["taskset", "-c", str(LOAD_CORE), program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    return subprocess.run(
        [*command, "-H", f"X-API-Key: {peer.key}", peer.url], capture_output=True, text=True, check=True
    ).stdout


def _read(printed: str) -> Measured:
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
    errors = (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if rate is None:
        raise RuntimeError(f"wrk printed no rate:\n{printed}")
    return Measured(float(rate[1]), _quantile(printed, 50), _quantile(printed, 99), errors)


def _quantile(printed: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)\s*$", printed, re.MULTILINE)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")
