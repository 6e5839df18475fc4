"""One run of `up`: starts the engines, prepares the database, starts the processes, and stops them in order."""

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

from django.core.exceptions import ValidationError
from django.db import OperationalError, connections
from django.urls import get_resolver

from apimgmt import checks, engines, env
from apimgmt.launcher import first_run, processes
from apimgmt.launcher.console import Console
from apimgmt.launcher.log_watch import LogWatch
from apimgmt.launcher.plan import ENGINES_BEFORE_FILE, READY_FILE, CannotStart, Plan, public_addresses
from apimgmt.launcher.store_watch import StoreWatch
from apimgmt.launcher.supervisor import CHECK_S, Supervised, Supervisor
from apimgmt.own_clients import first_bytes
from apimgmt.secret_store import write_private
from gateway.listening.ceilings import open_files_max
from gateway.log.disk import Disk

READY_WITHIN_S = 40.0
ENGINES_WITHIN_S = 5.0
PROBE_TIMEOUT_S = 2.0
FILES_ADVISED = 4096
BEYOND_DRAIN_S = 10.0
"""How long a process may take to end after the drain period of its connections."""
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
    """Starts, watches and stops everything."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._stop_signals = 0
        self._ready: dict[str, Any] = {}
        logs = plan.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self._log_watch = LogWatch(logs, console.report, env.retention().log_bytes)
        disk = Disk(env.events_dir(), int(env.bounds()["disk_free_min_bytes"]))
        self._store_watch = StoreWatch(logs / "nats.log", disk, self._restart_store)
        self._supervisor = Supervisor(
            logs,
            report=console.report,
            changed=self._write_ready,
            held=() if plan.lock is None else (plan.lock.fileno(),),
            hurry=lambda: self._stop_signals > 1,
        )

    def run(self) -> int:
        """Run until a stop signal and return the exit code."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup ignores it
                signal.signal(number, self._count_stop_signal)
        try:
            self._start()
            while not self._stop_signals:
                self._check()
                time.sleep(CHECK_S)
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
        if (files := open_files_max()) < FILES_ADVISED:
            console.report("files", f"only {files} may be open at once; raise the hard limit (ulimit -Hn)")
        for engine in plan.engines:
            self._supervisor.start(Supervised(engine.name, engine.name, command=engine.command))
        _preload()
        self._wait_for_engines()
        console.done("engines", ", ".join(engine.name for engine in plan.engines) or "configured by URLs")
        try:
            applied = first_run.migrate(plan.data_dir)
        except first_run.NewerTables as error:
            raise CannotStart(str(error)) from None
        console.done("tables", f"{applied} migrations applied" if applied else "up to date")
        try:
            admin = first_run.administrator(plan.data_dir)
        except ValidationError as error:
            raise CannotStart(f"The superuser of DJANGO_SUPERUSER_…: {' '.join(error.messages)}") from None
        keys: dict[str, str] = {}
        upstream: socket.socket | None = None
        if plan.has_demo:
            upstream = engines.listen(first_run.demo_upstream_port(plan.data_dir))
            keys = first_run.demo(plan.data_dir, "{}:{}".format(*upstream.getsockname()))
            console.done("demo", f"{len(keys)} consumers with keys")
        elif not plan.may_show_demo and public_addresses(plan) and (revoked := first_run.revoke_demo(plan.data_dir)):
            console.done("demo", f"{revoked} keys of an earlier run are revoked")
        connections.close_all()
        self._start_processes(upstream, keys)
        self._describe(admin, keys)
        self._wait(lambda: not self._supervisor.not_serving(), self._what_does_not_serve)
        self._wait(
            partial(self._is_answering, keys.get("gold")), lambda: "the web process does not accept the demo's keys"
        )
        console.done("processes", ", ".join(one.name for one in self._supervisor.all if one.run))
        self._write_ready()
        console.ready(self._ready, password=admin.password if admin.is_new else None)

    def _start_processes(self, upstream: socket.socket | None, keys: dict[str, str]) -> None:
        plan, start = self._plan, self._supervisor.start
        assert plan.web is not None, "reserved"
        assert plan.admin is not None, "reserved"
        assert plan.mqtt is not None, "reserved"
        leave_s = env.bounds()["drain_s"] + BEYOND_DRAIN_S
        self._supervisor.listening = [one for one in (plan.web, plan.admin, plan.mqtt, upstream) if one is not None]
        gc.freeze()  # keeps memory shared with the children
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

    def _check(self) -> None:
        self._supervisor.check()
        self._log_watch.check()
        self._store_watch.check()

    def _restart_store(self) -> None:
        self._console.report("nats", "is restarted: its disk was full, and has free space again")
        self._supervisor.restart("nats")

    def _stop(self) -> None:
        """Stop everything: the listeners first, the engines last."""
        (self._plan.data_dir / READY_FILE).unlink(missing_ok=True)
        if self._stop_signals:
            self._console.stopping()
        for kinds in STOPPED_IN_ORDER:
            self._supervisor.stop(*kinds)
        with contextlib.suppress(FileNotFoundError):
            (self._plan.data_dir / env.ENGINES_FILE).rename(self._plan.data_dir / ENGINES_BEFORE_FILE)
        if self._stop_signals:
            self._console.stopped()

    def _describe(self, admin: first_run.Administrator, keys: dict[str, str]) -> None:
        plan = self._plan
        base_url = plan.base_url
        host = f"[{plan.local_host}]" if ":" in plan.local_host else plan.local_host
        self._ready = {
            "base_url": base_url,
            "ws_url": base_url.replace("http", "ws", 1),
            "mqtt": f"{host}:{plan.mqtt_port}",
            "amqp": None,
            "admin": {
                "url": f"{plan.admin_url}/admin/",
                "api_url": f"{plan.admin_url}/api/v1/",
                "username": admin.username,
                "password": admin.password,
                "token": admin.token,
            },
            "keys": {name: keys[name] for name in ("gold", "free", "bench") if name in keys},
        }

    def _write_ready(self) -> None:
        """Write ready.json: addresses and process ids, from when everything serves until it stops."""
        if not self._ready or self._supervisor.is_stopping:
            return
        running = {kind: self._supervisor.pids(kind) for kind in KINDS}
        write_private(
            self._plan.data_dir / READY_FILE, json.dumps(self._ready | {"processes": running}, indent=1) + "\n"
        )

    def _is_answering(self, key: str | None) -> bool:
        """Return whether the web process answers; with a key of the demo, whether the key has reached it."""
        path, headers = ("/healthz", {}) if key is None else ("/v1/me", {"X-API-Key": key})
        caller = http.client.HTTPConnection(self._plan.local_host, self._plan.port, timeout=PROBE_TIMEOUT_S)
        try:
            caller.connect()
            caller.sock.sendall(first_bytes(caller.sock.getsockname()[0]))
            caller.request("GET", path, headers=headers)
            # The key may be refused because of the operator's hosts, IPs or limits.
            return caller.getresponse().status in (200, 400, 403, 429)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            caller.close()

    def _wait_for_engines(self) -> None:
        """Wait until every engine listens, embedded or configured by URL."""
        for name in ("REDIS_URL", "NATS_URL"):
            parts = urlsplit(env.engine_url(name).split(",")[0])
            where = (parts.hostname or "127.0.0.1", parts.port or {"NATS_URL": 4222}.get(name, 6379))
            otherwise = "{}: nothing listens at {}:{}".format
            self._wait(partial(_accepts, *where), partial(otherwise, name, *where), within_s=ENGINES_WITHIN_S)

    def _what_does_not_serve(self) -> str:
        return f"{', '.join(self._supervisor.not_serving())} did not start serving; see {self._plan.data_dir / 'logs'}"

    def _wait(
        self, condition: Callable[[], bool], otherwise: Callable[[], str], within_s: float = READY_WITHIN_S
    ) -> None:
        ends_at = time.monotonic() + within_s
        while not condition():
            self._check()
            if self._stop_signals:
                raise CannotStart("stopped before it was ready")
            if time.monotonic() > ends_at:
                raise CannotStart(otherwise())
            time.sleep(0.02)

    def _count_stop_signal(self, number: int, frame: Any) -> None:
        self._stop_signals += 1


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _refuse_exposure() -> None:
    """Raise CannotStart for settings that are unsafe anywhere: debug mode, wildcard hosts, short secrets."""
    errors = checks.check_exposure(None)
    if errors:
        raise CannotStart(" ".join(f"{one.msg} {one.hint or ''}".strip() for one in errors))


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
    """Import the modules that the processes need once, while the engines start."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert get_resolver().url_patterns, "URLs are loaded"
