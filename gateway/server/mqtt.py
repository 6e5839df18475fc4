"""The process that serves MQTT."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.protocols.mqtt import serve
from gateway.start import start


async def run(config: Config, listening: socket.socket, serves: Callable[[], None] = lambda: None) -> None:
    """Serve MQTT on a listening socket until SIGTERM, then drain. ``serves`` is called once it accepts connections."""
    plane = await start(config)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    accepting, sweeper = await serve(plane, listening)
    serves()
    await stop.wait()
    await accepting.stop()
    await plane.stop()
    await stop_tasks(sweeper)
