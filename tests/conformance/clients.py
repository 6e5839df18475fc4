"""Programs of other people, run as clients of the product."""

import json
import os
import queue
import subprocess
import threading
from pathlib import Path

from tests.product import tool

HERE = Path(__file__).resolve().parent


class Program:
    """A running client whose printed lines are read as they come."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, within_s: float = 20) -> str:
        return self.lines.get(timeout=within_s)

    def json(self, within_s: float = 20):
        return json.loads(self.line(within_s))

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))


def node(script: str, product, key: str) -> Program:
    return Program(tool("node"), f"seed/{script}", BASE_URL=product.base_url, WS_URL=product.ws_url, KEY=key)


def mosquitto_pub(product, key: str, topic: str, payload: str, *options: str) -> subprocess.CompletedProcess:
    command = [
        tool("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(product.mqtt_port), "-u", "key", "-P", key,
        "-t", topic, "-m", payload, *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def mosquitto_sub(product, key: str, topic: str, *options: str) -> Program:
    # It prints in blocks when nobody looks; stdbuf makes it print lines.
    return Program(
        tool("stdbuf"), "-oL", tool("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(product.mqtt_port),
        "-u", "key", "-P", key, "-t", topic, *options,
    )  # fmt: skip
