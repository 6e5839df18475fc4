"""A NATS of the tests' own, which they may kill, freeze and start again."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from pathlib import Path

from apimgmt.engines import free_port
from gateway.tests.freezing import freeze, thaw

_BINARY = Path(sysconfig.get_path("scripts")) / "nats-server"


class NatsServer:
    def __init__(self, folder: Path, store_max: str = "1PB", max_payload: str = "1MB") -> None:
        self.port, self.mqtt_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "server.conf"
        self._config.write_text(
            f"server_name: tests\nlisten: 127.0.0.1:{self.port}\n"
            f'jetstream {{ store_dir: "{folder}", sync_interval: 1s, max_file_store: {store_max} }}\n'
            f"max_payload: {max_payload}\nmqtt {{ listen: 127.0.0.1:{self.mqtt_port} }}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(_BINARY), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends_at = time.monotonic() + 20
        while time.monotonic() < ends_at:
            try:
                socket.create_connection(("127.0.0.1", self.mqtt_port), 0.5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("nats-server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        thaw(self._process.pid)
