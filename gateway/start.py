"""The composition root: starts the data plane of one process with its handlers."""

from __future__ import annotations

from gateway.config import Config
from gateway.handlers.table import HANDLERS
from gateway.plane import Plane


async def start(config: Config) -> Plane:
    """Connect to the engines, load the snapshot and return a plane that serves. Raises if NATS cannot be reached."""
    return await Plane.start(config, HANDLERS)
