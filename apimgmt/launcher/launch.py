"""One run of `up`, from the first engine to the last."""

from __future__ import annotations

import contextlib
import gc
import http.client
import importlib
import json
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.db import OperationalError, connections
from django.urls import get_resolver

from apimgmt import checks, engines, env
from apimgmt.launcher import first_run, processes
from apimgmt.launcher.console import Console
from apimgmt.launcher.log_watch import LogWatch
from apimgmt.launcher.plan import ENGINES_BEFORE_FILE, READY_FILE, CannotStart, Plan
from apimgmt.launcher.store_watch import StoreWatch
from apimgmt.launcher.supervisor import LOOK_S, Supervised, Supervisor
from apimgmt.secret_store import write_private
from gateway.log.disk import Disk

READY_WITHIN_S = 40.0
ENGINES_WITHIN_S = 5.0
PROBE_TIMEOUT_S = 2.0
BEYOND_DRAIN_S = 10.0
"""What a process may take to leave, once its connections have had their time."""
KINDS = (
    "web",
    "admin",
    "worker",
    "beat",
    "projector",
    "delivery",
    "connectors",
    "mqtt",
    "amqp",
    "redis",
    "nats",
    "demo",
)
STOPPED_IN_ORDER = (
    ("web", "admin", "mqtt", "amqp"), ("beat", "worker", "delivery", "connectors"), ("demo",), ("projector",),
    ("redis", "nats"),
)  # fmt: skip
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Launch:
    """Starts everything, watches it, and takes it down."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._times_told_to_stop = 0
        self._ready: dict[str, Any] = {}
        logs = plan.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self._log_watch = LogWatch(logs, console.told)
        disk = Disk(env.events_dir(), int(env.bounds()["disk_free_min_bytes"]))
        self._store_watch = StoreWatch(logs / "nats.log", disk, self._restart_store)
        self._supervisor = Supervisor(
            logs,
            tell=console.told,
            changed=self._write_ready,
            held=() if plan.lock is None else (plan.lock.fileno(),),
            hurry=lambda: self._times_told_to_stop > 1,
        )

    def run(self) -> int:
        """Run until told to stop. Gives the exit code."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup ignores it
                signal.signal(number, self._told_to_stop)
        try:
            self._start()
            while not self._times_told_to_stop:
                self._look()
                time.sleep(LOOK_S)
        except CannotStart as error:
            self._console.failed(str(error))
            return 1
        except OperationalError as error:
            self._console.failed(f"The database does not answer: {error}")
            return 1
        finally:
            self._stop()
        return 0

    def _start(self) -> None:
        plan, console = self._plan, self._console
        _refuse_exposure()
        for engine in plan.engines:
            self._supervisor.start(Supervised(engine.name, engine.name, command=engine.command))
        _preload()
        self._wait_for_engines()
        console.done("engines", ", ".join(engine.name for engine in plan.engines) or "named by URLs")
        try:
            made = first_run.migrate(plan.data_dir)
        except first_run.NewerTables as error:
            raise CannotStart(str(error)) from None
        console.done("tables", f"{made} migrations made" if made else "up to date")
        admin = first_run.administrator(plan.data_dir)
        keys: dict[str, str] = {}
        upstream: socket.socket | None = None
        if plan.has_demo:
            upstream = engines.listen(first_run.demo_upstream_port(plan.data_dir))
            keys = first_run.demo(plan.data_dir, "{}:{}".format(*upstream.getsockname()))
            console.done("demo", f"{len(keys)} consumers with keys")
        connections.close_all()
        self._start_processes(upstream, keys)
        self._describe(admin, keys)
        self._wait(lambda: not self._supervisor.not_serving(), self._what_does_not_serve)
        self._wait(partial(self._knows, keys.get("gold")), lambda: "the web process does not know the demo's keys")
        console.done("processes", ", ".join(one.name for one in self._supervisor.all if one.run))
        self._write_ready()
        console.ready(self._ready)

    def _start_processes(self, upstream: socket.socket | None, keys: dict[str, str]) -> None:
        plan, start = self._plan, self._supervisor.start
        assert plan.web is not None, "reserved"
        assert plan.admin is not None, "reserved"
        assert plan.mqtt is not None, "reserved"
        leave_s = env.bounds()["drain_s"] + BEYOND_DRAIN_S
        self._supervisor.listening = [one for one in (plan.web, plan.admin, plan.mqtt, upstream) if one is not None]
        gc.freeze()  # what is shared with children stays shared
        start(Supervised("projector", "projector", run=processes.projector))
        start(Supervised("delivery", "delivery", run=processes.delivery))
        start(Supervised("connectors", "connectors", run=processes.connectors))
        for number in range(1, plan.workers + 1):
            run = partial(processes.web, plan.web, number)
            start(Supervised("web", f"web-{number}", run=run, stop_within_s=leave_s, listening=plan.web))
        run = partial(processes.admin, plan.admin)
        start(Supervised("admin", "admin", run=run, stop_within_s=leave_s, listening=plan.admin))
        run = partial(processes.mqtt, plan.mqtt, 1)
        start(Supervised("mqtt", "mqtt", run=run, stop_within_s=leave_s, listening=plan.mqtt))
        start(Supervised("worker", "worker", run=processes.worker))
        start(Supervised("beat", "beat", run=partial(processes.beat, plan.data_dir), stop_within_s=3))
        if upstream is not None:
            run = partial(processes.demo_upstream, upstream)
            start(Supervised("demo", "demo-upstream", run=run, stop_within_s=3, listening=upstream))
        if "field-sensors" in keys:
            sensor = partial(processes.demo_sensor, plan.local_host, plan.mqtt_port, keys["field-sensors"])
            start(Supervised("demo", "demo-sensor", run=sensor, stop_within_s=3))

    def _look(self) -> None:
        self._supervisor.look()
        self._log_watch.look()
        self._store_watch.look()

    def _restart_store(self) -> None:
        self._console.told("nats", "met a full disk, and is started anew: there is room again")
        self._supervisor.restart("nats")

    def _stop(self) -> None:
        """Take all down: first what callers see, last the engines."""
        (self._plan.data_dir / READY_FILE).unlink(missing_ok=True)
        if self._times_told_to_stop:
            self._console.stopping()
        for kinds in STOPPED_IN_ORDER:
            self._supervisor.stop(*kinds)
        with contextlib.suppress(FileNotFoundError):
            (self._plan.data_dir / env.ENGINES_FILE).rename(self._plan.data_dir / ENGINES_BEFORE_FILE)
        if self._times_told_to_stop:
            self._console.stopped()

    def _describe(self, admin: dict[str, str], keys: dict[str, str]) -> None:
        plan = self._plan
        base_url = plan.base_url
        host = f"[{plan.local_host}]" if ":" in plan.local_host else plan.local_host
        self._ready = {
            "base_url": base_url,
            "ws_url": base_url.replace("http", "ws", 1),
            "mqtt": f"{host}:{plan.mqtt_port}",
            "amqp": None,
            "admin": {"url": f"{plan.admin_url}/admin/", "api_url": f"{plan.admin_url}/api/v1/", **admin},
            "keys": {name: keys[name] for name in ("gold", "free", "bench") if name in keys},
        }

    def _write_ready(self) -> None:
        """Say where everything is, and which process is which; from the time when all serves, until all is stopped."""
        if not self._ready or self._supervisor.is_stopping:
            return
        running = {kind: self._supervisor.pids(kind) for kind in KINDS}
        write_private(
            self._plan.data_dir / READY_FILE, json.dumps(self._ready | {"processes": running}, indent=1) + "\n"
        )

    def _knows(self, key: str | None) -> bool:
        """Say whether callers are served: with a key of the demo, that it has come down to the web process."""
        path, headers = ("/healthz", {}) if key is None else ("/v1/me", {"X-API-Key": key})
        caller = http.client.HTTPConnection(self._plan.local_host, self._plan.port, timeout=PROBE_TIMEOUT_S)
        try:
            caller.request("GET", path, headers=headers)
            # Known, too, where the operator has set other hosts, addresses or limits.
            return caller.getresponse().status in (200, 400, 403, 429)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            caller.close()

    def _wait_for_engines(self) -> None:
        """Wait until every engine listens, ours and those that URLs name."""
        for name in ("REDIS_URL", "NATS_URL"):
            parts = urlsplit(env.engine_url(name).split(",")[0])
            where = (parts.hostname or "127.0.0.1", parts.port or {"NATS_URL": 4222}.get(name, 6379))
            otherwise = "{}: nothing listens at {}:{}".format
            self._wait(partial(_accepts, *where), partial(otherwise, name, *where), within_s=ENGINES_WITHIN_S)

    def _what_does_not_serve(self) -> str:
        return f"{', '.join(self._supervisor.not_serving())} did not begin to serve; see {self._plan.data_dir / 'logs'}"

    def _wait(self, seen: Callable[[], bool], otherwise: Callable[[], str], within_s: float = READY_WITHIN_S) -> None:
        ends_at = time.monotonic() + within_s
        while not seen():
            self._look()
            if self._times_told_to_stop:
                raise CannotStart("stopped before it was ready")
            if time.monotonic() > ends_at:
                raise CannotStart(otherwise())
            time.sleep(0.02)

    def _told_to_stop(self, number: int, frame: Any) -> None:
        self._times_told_to_stop += 1


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _refuse_exposure() -> None:
    """Refuse what is unsafe wherever it runs: pages that show our inside, hosts of anybody, weak secrets."""
    found = checks.check_exposure(None)
    if found:
        raise CannotStart(" ".join(f"{one.msg} {one.hint or ''}".strip() for one in found))


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
    "events.data_plane_handlers",
    "events.dead_letter_intake",
    "gateway.connectors.process",
    "gateway.delivery.process",
    "gateway.plane",
    "gateway.protocols.mqtt",
    "gateway.server.server",
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
