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

from apimgmt.engines import free_port
from benchmarks import issuer
from benchmarks.peers.servers import Server, Upstreams
from benchmarks.processes import LOAD_CORE, SERVER_CORE, pin, stop
from benchmarks.sampling import OURS

START_TIMEOUT_S = 90
SERVED_WITHIN_S = 10
CHECKED = "bench/orders"
"""The channel that publishes are measured on."""
SCHEMA = {
    "type": "object",
    "properties": {
        "symbol": {"type": "string", "pattern": "^[A-Z]{1,6}$"},
        "price": {"type": "number"},
        "quantity": {"type": "integer", "minimum": 1},
    },
    "required": ["symbol", "quantity"],
}
SERVING = ("web", "mqtt")
"""The processes that callers connect to."""
POLICIES = [{"type": "rate-limit"}]


@contextlib.contextmanager
def product(folder: Path, workers: int = 1) -> Iterator[dict[str, Any]]:
    """Run `manage.py up` with one web process, or more; yields what its ready.json says."""
    data_dir = folder / "var"
    options = ["--data-dir", str(data_dir), "--workers", str(workers)]
    for name in ("--port", "--admin-port", "--mqtt-port"):
        options += [name, str(free_port())]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *options], stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"}
        )
    try:
        ready = _wait(data_dir / "ready.json", process)
        for name, pids in ready["processes"].items():
            for pid in pids:
                if workers == 1:
                    pin(pid, SERVER_CORE if name in SERVING else LOAD_CORE)
        yield ready
    finally:
        stop(process)


def server(ready: dict[str, Any], to: Upstreams) -> Server:
    """Create what the works need, wait until it is served, and return the product as one of the servers."""
    upstream = f"http://127.0.0.1:{to.http_port}"
    http = {"methods": ["GET", "POST"], "protocol": "http", "policies": POLICIES}
    handler = {"type": "upstream", "url": upstream + "/{rest}"}
    manage(ready, "routes/", http | {"name": "bench", "path": "/bench/{rest...}", "handler": handler})
    tunnel = {"type": "upstream", "url": f"ws://127.0.0.1:{to.echo_port}/ws"}
    websocket = {"methods": ["GET"], "protocol": "websocket", "policies": POLICIES}
    manage(ready, "routes/", websocket | {"name": "bench-ws", "path": "/ws", "handler": tunnel})
    manage(ready, "channels/", {"address": CHECKED, "title": "Orders of the benchmarks", "schema": SCHEMA})
    trusted = {
        "name": "bench",
        "issuer": issuer.ISSUER,
        "jwks_url": f"{upstream}/jwks.json",
        "audience": issuer.AUDIENCE,
    }
    manage(ready, "issuers/", trusted)
    port = int(ready["base_url"].rpartition(":")[2])
    _until_served(f"{ready['base_url']}/bench/quotes/ACME", ready["keys"]["bench"])
    return Server(OURS, port, *_pids(ready, "web"), ready["keys"]["bench"], port)


def over_mqtt(ready: dict[str, Any]) -> Server:
    """Return the product as an MQTT broker."""
    port = int(ready["mqtt"].rpartition(":")[2])
    return Server(OURS, port, *_pids(ready, "mqtt"), ready["keys"]["bench"])


def manage(ready: dict[str, Any], path: str, body: Any) -> Any:
    """Post to the management API and return its answer."""
    return _call(f"{ready['admin']['api_url']}{path}", f"Token {ready['admin']['token']}", body)


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


def _pids(ready: dict[str, Any], serving: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the processes of this kind, and all others."""
    running: dict[str, list[int]] = ready["processes"]
    others = tuple(pid for name, pids in running.items() if name != serving for pid in pids)
    return tuple(running[serving]), others


def _until_served(url: str, key: str) -> None:
    ends_at = time.monotonic() + SERVED_WITHIN_S
    while True:
        try:
            _call(url, f"Bearer {key}")
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > ends_at:
                raise
            time.sleep(0.1)
        else:
            return


def _call(url: str, authorization: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 404:
            error.add_note(error.read().decode(errors="replace"))
        raise


def _wait(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    ends_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            ready: dict[str, Any] = json.loads(path.read_text())
            return ready
        time.sleep(0.1)
    raise RuntimeError(f"the product did not start; see {path.parent.parent / 'up.log'}")
