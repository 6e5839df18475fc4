"""One run of `up`, from the first engine to the last."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import signal
import socket
import time
import urllib.error
import urllib.request
from functools import partial
from typing import Any

from django.db import connections
from django.urls import get_resolver

from apimgmt import engines
from apimgmt.launcher import first_run, processes
from apimgmt.launcher.console import Console
from apimgmt.launcher.plan import CannotStart, Plan
from apimgmt.launcher.supervisor import LOOK_S, Supervised, Supervisor
from apimgmt.secret_store import write_private

logger = logging.getLogger(__name__)

READY_WITHIN_S = 40.0
PROBE_TIMEOUT_S = 2.0
KINDS = ("web", "worker", "beat", "projector", "mqtt", "amqp", "redis", "nats", "demo")


class Launch:
    """Starts everything, watches it, and takes it down."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._is_told_to_stop = False
        self._ready: dict[str, Any] = {}
        logs = plan.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self._supervisor = Supervisor(logs, changed=self._write_ready)

    def run(self) -> int:
        """Run until told to stop. Gives the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told_to_stop)
        try:
            self._start()
            while not self._is_told_to_stop:
                self._supervisor.look()
                time.sleep(LOOK_S)
        except CannotStart as error:
            self._console.failed(str(error))
            return 1
        finally:
            self._stop()
        return 0

    def _start(self) -> None:
        plan, console, supervisor = self._plan, self._console, self._supervisor
        for engine in plan.engines:
            supervisor.start(Supervised(engine.name, engine.name, command=engine.command))
        _preload()
        for engine in plan.engines:
            self._wait(f"{engine.name} does not listen", partial(_accepts, "127.0.0.1", engine.port))
        console.done("engines", ", ".join(engine.name for engine in plan.engines) or "named by URLs")
        made = first_run.migrate(plan.data_dir)
        console.done("tables", f"{made} migrations made" if made else "up to date")
        admin = first_run.administrator(plan.data_dir)
        keys: dict[str, str] = {}
        upstream: socket.socket | None = None
        if plan.has_demo:
            upstream = self._listen_for_demo()
            keys = first_run.demo(plan.data_dir, "{}:{}".format(*upstream.getsockname()))
            console.done("demo", f"{len(keys)} consumers with keys")
        connections.close_all()
        self._start_processes(upstream, keys)
        self._describe(admin, keys)
        self._wait("the web process does not serve", partial(self._serves, keys.get("gold")))
        console.done("processes", ", ".join(dict.fromkeys(one.name for one in supervisor.all if one.run)))
        self._write_ready()
        console.ready(self._ready)

    def _start_processes(self, upstream: socket.socket | None, keys: dict[str, str]) -> None:
        plan, start = self._plan, self._supervisor.start
        assert plan.web is not None, "reserved"
        assert plan.mqtt is not None, "reserved"
        gc.freeze()  # what is shared with children stays shared
        start(Supervised("projector", "projector", run=processes.projector))
        for number in range(1, plan.workers + 1):
            run = partial(processes.web, plan.web, number)
            start(Supervised("web", f"web-{number}", run=run, stop_within_s=40))
        start(Supervised("mqtt", "mqtt", run=partial(processes.mqtt, plan.mqtt, 1), stop_within_s=40))
        start(Supervised("worker", "worker", run=processes.worker))
        start(Supervised("beat", "beat", run=partial(processes.beat, plan.data_dir), stop_within_s=3))
        if upstream is not None:
            start(Supervised("demo", "demo-upstream", run=partial(processes.demo_upstream, upstream), stop_within_s=3))
            sensor = partial(processes.demo_sensor, plan.mqtt_port, keys.get("field-sensors", ""))
            start(Supervised("demo", "demo-sensor", run=sensor, stop_within_s=3))

    def _stop(self) -> None:
        """Take all down: first what callers see, last the engines."""
        with contextlib.suppress(FileNotFoundError):
            (self._plan.data_dir / "ready.json").unlink()
        if self._is_told_to_stop:
            self._console.stopping()
        for kinds in (("demo",), ("web", "mqtt", "amqp"), ("beat", "worker"), ("projector",), ("redis", "nats")):
            self._supervisor.stop(*kinds)
        with contextlib.suppress(FileNotFoundError):
            (self._plan.data_dir / "engines.json").rename(self._plan.data_dir / "engines.last.json")
        if self._is_told_to_stop:
            self._console.stopped()

    def _describe(self, admin: dict[str, str], keys: dict[str, str]) -> None:
        plan = self._plan
        base_url = plan.base_url
        host = "127.0.0.1" if plan.host in ("0.0.0.0", "::") else plan.host
        self._ready = {
            "base_url": base_url,
            "ws_url": base_url.replace("http", "ws", 1),
            "mqtt": f"{host}:{plan.mqtt_port}",
            "amqp": None,
            "admin": {"url": f"{base_url}/admin/", **admin},
            "keys": {name: keys[name] for name in ("gold", "free", "bench") if name in keys},
        }

    def _write_ready(self) -> None:
        """Say where everything is, and which process is which."""
        if not self._ready or self._supervisor.is_stopping:
            return
        running = {kind: self._supervisor.pids(kind) for kind in KINDS}
        write_private(
            self._plan.data_dir / "ready.json", json.dumps(self._ready | {"processes": running}, indent=1) + "\n"
        )

    def _serves(self, key: str | None) -> bool:
        """Say whether callers are served: with a key of the demo, that it is known already."""
        request = urllib.request.Request(f"http://{self._local()}/healthz")
        if key is not None:
            request = urllib.request.Request(f"http://{self._local()}/v1/me", headers={"X-API-Key": key})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def _local(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._plan.host, self._plan.host)
        return f"{host}:{self._plan.port}"

    def _wait(self, otherwise: str, look: partial[bool]) -> None:
        ends_at = time.monotonic() + READY_WITHIN_S
        while not look():
            self._supervisor.look()
            if self._is_told_to_stop:
                raise CannotStart("stopped before it was ready")
            if time.monotonic() > ends_at:
                raise CannotStart(f"{otherwise}; see {self._plan.data_dir / 'logs'}")
            time.sleep(0.02)

    def _listen_for_demo(self) -> socket.socket:
        """Listen for the demo's upstream on the port that it had before where that is free."""
        marker = self._plan.data_dir / "demo-upstream"
        before = int(marker.read_text().rpartition(":")[2]) if marker.exists() else 8090
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", engines.free_port(before)))
        listening.listen(1024)
        listening.setblocking(False)
        return listening

    def _told_to_stop(self, number: int, frame: Any) -> None:
        self._is_told_to_stop = True


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


PRELOADED = (
    "analytics.projector",
    "apimgmt.asgi",
    "apimgmt.celery",
    "audit.relay",
    "celery.app.amqp",
    "celery.apps.worker",
    "celery.beat",
    "celery.concurrency.thread",
    "celery.fixups.django",
    "celery.worker.consumer",
    "demo.sensor",
    "demo.upstream",
    "events.dead_letters",
    "gateway.plane",
    "gateway.protocols.mqtt.server",
    "gateway.server",
    "jobs.intake",
    "kombu.transport.redis",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
)


def _preload() -> None:
    """Import what the processes will need, once, while the engines start."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert get_resolver().url_patterns, "addresses are loaded"
