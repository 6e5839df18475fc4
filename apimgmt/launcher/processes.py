"""What each supervised process runs: entered after the fork, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
RESTART_S = 0.5
WORKER_THREADS = 4


def enter(name: str, log: Path, parent: int) -> None:
    """Become a supervised process: named, logging to its file, deaf to Ctrl-C, gone when the supervisor is.

    Ctrl-C in a terminal reaches the whole group; only the supervisor acts on it, so that all leave in order.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_NAME, name.encode()[:15])
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def web(listening: socket.socket, number: int) -> None:
    """Serve HTTP, SSE and WebSocket, and Django beside them."""
    import uvloop

    os.environ["WEB_NUMBER"] = str(number)
    _collect_rarely()
    from apimgmt import env
    from apimgmt.asgi import application, is_djangos_raw
    from gateway.server import Site, serve

    bounds = env.gateway_config("web", number)
    site = Site(bounds, lambda: application.plane, is_djangos_raw, application.count)
    uvloop.run(serve(application, listening, site, drain=application.stop))


def mqtt(listening: socket.socket, number: int) -> None:
    """Serve MQTT."""
    import uvloop

    from apimgmt import env
    from gateway.protocols.mqtt.server import run

    _collect_rarely()

    uvloop.run(run(env.gateway_config("mqtt", number), listening))


def _collect_rarely() -> None:
    """Look for cycles rarely: calls leave none behind, and looking costs each of them."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def worker() -> None:
    """Run jobs."""
    from apimgmt.celery import application

    options = f"--pool threads --concurrency {WORKER_THREADS} --without-mingle --without-gossip --loglevel WARNING"
    application.worker_main(["worker", *options.split()])


def beat(data_dir: Path) -> None:
    """Tell the worker what is due."""
    from apimgmt.celery import application

    application.start(["beat", "--schedule", str(data_dir / "beat-schedule"), "--pidfile", "", "--loglevel", "WARNING"])


def projector() -> None:
    """Carry changes down, and usage, dead letters and jobs up."""
    asyncio.run(_project())


def demo_upstream(listening: socket.socket) -> None:
    """Serve the demo's quotes."""
    from demo.upstream import main

    main(listening)


def demo_sensor(mqtt_port: int, key: str) -> None:
    """Send simulated readings."""
    from demo.sensor import main

    main("127.0.0.1", mqtt_port, key)


async def _project() -> None:
    from analytics import projector as usage
    from apimgmt import env
    from audit import relay
    from events import dead_letters
    from gateway.nats_link import connect
    from jobs import intake

    client, js = await connect(env.engine_url("NATS_URL"), "projector")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    parts = (relay.run, usage.run, dead_letters.run, intake.run)
    await asyncio.gather(*(_kept_running(part, client, js, stop) for part in parts))
    await client.close()


async def _kept_running(
    part: Callable[[Any, Any, asyncio.Event], Awaitable[None]], client: Any, js: Any, stop: asyncio.Event
) -> None:
    """Run one part; a fault of it is logged and it begins again, without the others noticing."""
    while not stop.is_set():
        try:
            await part(client, js, stop)
        except Exception:
            logger.exception("%s failed and begins again", part.__module__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RESTART_S)


def set_up_logging() -> None:
    """Log as JSON lines in a process without Django."""
    from apimgmt.logs import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), handlers=[handler], force=True)
    logging.getLogger("nats").setLevel(logging.ERROR)
