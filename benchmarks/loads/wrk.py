"""HTTP load by wrk, on the load's core."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.processes import LOAD_CORE

CONNECTIONS = 64
HOW = "Debian: apt-get install wrk"


@dataclass(frozen=True, slots=True)
class Printed:
    """What wrk says of a run."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def run(
    url: str, headers: Mapping[str, str], seconds: float, script: str | None = None, connections: int = CONNECTIONS
) -> Printed:
    """Send requests over keep-alive connections for so long; ``script`` is the path of one in Lua."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError(f"wrk is not installed ({HOW})")
    command = ["taskset", "-c", str(LOAD_CORE), program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--latency", *(["-s", script] if script else [])]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    return parse(subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout)


def parse(printed: str) -> Printed:
    """Read what wrk printed. Raises RuntimeError where it printed no rate."""
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
    errors = (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    requests = re.search(r"(\d+) requests in", printed)
    if rate is None or requests is None:
        raise RuntimeError(f"wrk printed no rate:\n{printed}")
    return Printed(int(requests[1]), float(rate[1]), _quantile(printed, 50), _quantile(printed, 99), errors)


def _quantile(printed: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)\s*$", printed, re.MULTILINE)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")
