"""The product under measurement: started as anybody starts it, its web process pinned to the server's core."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import LOAD_CORE, SERVER_CORE, free_port, pin

START_TIMEOUT_S = 90
ROUTE = "bench-upstream"


@contextlib.contextmanager
def product(folder: Path, workers: int = 1) -> Iterator[dict[str, Any]]:
    """Run `manage.py up` with one web process, or more; gives what its ready.json says."""
    data_dir = folder / "var"
    options = [
        "--port",
        str(free_port()),
        "--admin-port",
        str(free_port()),
        "--mqtt-port",
        str(free_port()),
        "--data-dir",
        str(data_dir),
        "--workers",
        str(workers),
    ]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *options], stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"}
        )
    try:
        ready = _wait(data_dir / "ready.json", process)
        for name, pids in ready["processes"].items():
            for pid in pids:
                if workers == 1:
                    pin(pid, SERVER_CORE if name == "web" else LOAD_CORE)
        yield ready
    finally:
        process.terminate()
        process.wait()


def route_to(ready: dict[str, Any], upstream_port: int) -> str:
    """Make a governed route to the shared upstream; gives its URL once it is served."""
    route = {
        "name": ROUTE,
        "path": "/bench/{rest...}",
        "methods": ["GET"],
        "protocol": "http",
        "handler": {"type": "upstream", "url": f"http://127.0.0.1:{upstream_port}/{{rest}}"},
        "policies": [{"type": "api-key"}, {"type": "rate-limit"}],
    }
    manage(ready, "routes/", route)
    url = f"{ready['base_url']}/bench/quotes/ACME"
    ends_at = time.monotonic() + 10
    while True:
        try:
            _call(url, f"Bearer {ready['keys']['bench']}")
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > ends_at:
                raise
            time.sleep(0.1)
        else:
            return url


def manage(ready: dict[str, Any], path: str, body: Any) -> Any:
    """Post to the management API; gives what it says."""
    return _call(f"{ready['admin']['api_url']}{path}", f"Token {ready['admin']['token']}", body)


def sockets(kind: str, ready: dict[str, Any], connections: int, amount: int) -> dict[str, float]:
    """Run one measurement of benchmarks/socket_load.py on the load's core."""
    arguments = [kind, f"{ready['ws_url']}/v1/stream", ready["keys"]["bench"], str(connections), str(amount)]
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.socket_load", *arguments],
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def policies(folder: Path) -> dict[str, float]:
    """Measure what each policy costs, on the server's core and with the product's own store."""
    redis_url = json.loads((folder / "var" / "engines.json").read_text())["REDIS_URL"]
    done = subprocess.run(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "benchmarks.policies", redis_url],
        stdout=subprocess.PIPE,
        check=True,
    )
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def _call(url: str, authorization: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return json.loads(answer.read())


def _wait(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    ends_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            ready: dict[str, Any] = json.loads(path.read_text())
            return ready
        time.sleep(0.1)
    raise RuntimeError(f"the product did not start; see {path.parent.parent / 'up.log'}")
