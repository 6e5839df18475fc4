"""Runs one load: ``python -m benchmarks.loads NAME ARGUMENTS``, the arguments in JSON; prints its measures in JSON."""

from __future__ import annotations

import json
import sys

import uvloop

from benchmarks.loads import echo, fan_out, handshakes, idle, paced, publishing

LOADS = {
    "echo": echo.run,
    "handshakes": handshakes.run,
    "fan-out": fan_out.run,
    "fan-out-latency": fan_out.latency,
    "publishing": publishing.run,
    "paced": paced.run,
    "idle": idle.run,
}

if __name__ == "__main__":
    measured = uvloop.run(LOADS[sys.argv[1]](**json.loads(sys.argv[2])))  # type: ignore[operator]
    if measured is not None:
        print(json.dumps(measured))
