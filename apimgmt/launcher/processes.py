"""Entry points of the supervised processes, called after the fork."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
RESTART_S, RESTART_MAX_S = 0.25, 1.5
STEADY_AFTER_S = 10.0
WORKER_THREADS = 4
COLLECTED = (5_000, 10, 1_000)
"""Collections of processes that serve (``gc.set_threshold``): the second generation has 50,000 objects at most, however
many connections are open, and all objects are looked at once in 50 million."""


def follow(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def enter(name: str, log: Path, parent: int) -> None:
    """Set up a supervised process: its name, its log file, its signals, and that it dies with the supervisor.

    Ctrl-C in a terminal signals the whole process group, so each process leaves it: only the supervisor acts on it.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    follow(parent)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15])
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def web(listening: socket.socket, number: int, serves: Callable[[], None]) -> None:
    """Serve the data plane's HTTP, SSE and WebSocket, and the public documents."""
    import uvloop

    os.environ["WEB_NUMBER"] = str(number)
    from apimgmt import env
    from apimgmt.asgi import data_plane, is_public_page_raw, server_application
    from gateway.listening.capacity import Capacity
    from gateway.server.server import serve
    from gateway.server.site import Site

    data_plane.started = partial(serve_without_long_collections, serves)
    config = env.gateway_config("web", number)
    site = Site(config, lambda: data_plane.plane, is_public_page_raw, data_plane.count, Capacity(config))
    uvloop.run(serve(server_application, listening, site, drain=data_plane.stop))


def admin(listening: socket.socket, serves: Callable[[], None]) -> None:
    """Serve the operators' pages, the management API and the metrics, on their own socket."""
    import uvloop

    from apimgmt import env
    from apimgmt.asgi import admin_application, stop_operators_streams
    from apimgmt.process_reports import ProcessReports, own_registry
    from gateway.listening.capacity import Capacity
    from gateway.server.server import serve
    from gateway.server.site import Site

    config = env.gateway_config("admin")
    site = Site(config, lambda: None, lambda path: True, lambda refused: None, Capacity(config))
    registry = own_registry()
    registry.register(site.capacity)
    ProcessReports("admin-1", env.engine_url("NATS_URL"), registry).start()
    uvloop.run(serve(admin_application(serves), listening, site, drain=stop_operators_streams))


def mqtt(listening: socket.socket, number: int, serves: Callable[[], None]) -> None:
    """Serve MQTT."""
    import uvloop

    from apimgmt import env
    from gateway.server.mqtt import run

    serves_now = partial(serve_without_long_collections, serves)
    uvloop.run(run(env.gateway_config("mqtt", number), listening, serves_now))


def serve_without_long_collections(serves: Callable[[], None]) -> None:
    """Leave what was made to start out of garbage collections, bound the others, and report that the process serves.

    Calls and connections leave no cycles, so a collection only delays them, for about a millisecond per 5,000 objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED)
    serves()


def worker(serves: Callable[[], None]) -> None:
    """Run jobs."""
    from celery.signals import setup_logging, task_postrun, task_prerun, task_received, worker_ready

    from apimgmt import env
    from apimgmt.celery import application
    from apimgmt.process_reports import ProcessReports, TaskMetrics, own_registry
    from apimgmt.retention import KEPT_AT
    from apimgmt.worker_watch import WorkerWatch, waiting
    from operators.batches import REMOVED

    registry = own_registry()
    registry.register(REMOVED)
    registry.register(KEPT_AT)
    metrics = TaskMetrics(registry)
    task_prerun.connect(metrics.begins, weak=False)
    task_postrun.connect(metrics.ends, weak=False)
    ProcessReports("worker-1", env.engine_url("NATS_URL"), registry).start()
    setup_logging.connect(lambda **_: None, weak=False)  # Celery leaves the project's logging as it is
    watch = WorkerWatch(lambda: waiting(application))
    task_received.connect(watch.took, weak=False)
    task_prerun.connect(watch.begins, weak=False)
    task_postrun.connect(watch.ends, weak=False)
    worker_ready.connect(lambda **_: serves(), weak=False)
    worker_ready.connect(lambda **_: watch.start(), weak=False)
    options = f"--pool threads --concurrency {WORKER_THREADS} --without-mingle --without-gossip --loglevel WARNING"
    application.worker_main(["worker", *options.split()])


def beat(data_dir: Path, serves: Callable[[], None]) -> None:
    """Enqueue scheduled tasks."""
    from celery.signals import beat_init

    from apimgmt import env
    from apimgmt.celery import application
    from apimgmt.process_reports import ProcessReports, own_registry

    ProcessReports("beat-1", env.engine_url("NATS_URL"), own_registry()).start()
    beat_init.connect(lambda **_: serves(), weak=False)
    application.start(["beat", "--schedule", str(data_dir / "beat-schedule"), "--pidfile", "", "--loglevel", "WARNING"])


def projector(serves: Callable[[], None]) -> None:
    """Publish configuration, project usage, dead letters and jobs, and serve the requests of the data plane."""
    asyncio.run(_project(serves))


def delivery(serves: Callable[[], None]) -> None:
    """Deliver webhooks and watch the lag of subscriptions."""
    import uvloop

    uvloop.run(_deliver(serves))


def connectors(serves: Callable[[], None]) -> None:
    """Run connectors to other brokers."""
    import uvloop

    uvloop.run(_connect(serves))


def demo_upstream(listening: socket.socket, serves: Callable[[], None]) -> None:
    """Serve the demo's upstream."""
    from demo.upstream import main

    serves()  # the socket listens already: connections wait in its backlog
    main(listening)


def demo_sensor(host: str, mqtt_port: int, key: str, serves: Callable[[], None]) -> None:
    """Publish the demo's sensor readings."""
    from demo.sensor import main

    serves()
    main(host, mqtt_port, key)


async def _deliver(serves: Callable[[], None]) -> None:
    from apimgmt import env
    from gateway.delivery.process import run

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(env.gateway_config("delivery"), stop, serves)


async def _connect(serves: Callable[[], None]) -> None:
    from apimgmt import env
    from gateway.connectors.process import run

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(env.gateway_config("connectors"), stop, serves)


async def _project(serves: Callable[[], None]) -> None:
    from analytics import projector as usage
    from apimgmt import env
    from apimgmt.process_reports import own_registry
    from apimgmt.stream_bounds import StreamBounds
    from audit import relay
    from audit.data_plane_requests import serve_requests
    from events import data_plane_handlers, dead_letter_intake
    from gateway.link.metrics import Reporter
    from gateway.link.nats import connect
    from jobs import intake
    from operators.batches import REMOVED

    client, js = await connect(env.engine_url("NATS_URL"), "projector")
    registry = own_registry()
    registry.register(REMOVED)
    reporter = Reporter(client, f"projector-1-{secrets.token_hex(3)}", registry)
    await reporter.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    serves()
    bounds = StreamBounds(env.retention())
    requests = serve_requests(data_plane_handlers.HANDLERS)
    parts = (relay.run, usage.run, dead_letter_intake.run, intake.run, requests, bounds.run)
    await asyncio.gather(*(kept_running(part, client, js, stop) for part in parts))
    await reporter.stop()
    await client.close()


async def kept_running(
    part: Callable[[Any, Any, asyncio.Event], Awaitable[None]], client: Any, js: Any, stop: asyncio.Event
) -> None:
    """Run one part until ``stop`` is set; if it fails or ends, restart it after a delay that doubles."""
    pause_s = RESTART_S
    while not stop.is_set():
        began_at = time.monotonic()
        try:
            await part(client, js, stop)
        except Exception:
            logger.exception("%s failed and is restarted", part.__module__)
        pause_s = RESTART_S if time.monotonic() - began_at > STEADY_AFTER_S else min(pause_s * 2, RESTART_MAX_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
