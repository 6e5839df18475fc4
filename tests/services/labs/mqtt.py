"""An MQTT broker (Mosquitto) in a lab."""

from __future__ import annotations

import asyncio
import itertools
import subprocess

from tests.services.brokers import Mosquitto
from tests.services.labs.lab import Lab


class MqttLab(Lab):
    type = "mqtt"
    keeps_ids = False
    prefix = ""

    def __init__(self, folder):
        super().__init__(folder)
        self.server = Mosquitto(folder)
        self.heard = []
        self.listener = None

    def start(self):
        self.server.start()

    def stop(self):
        self.server.stop()

    def source(self):
        return {"host": "127.0.0.1", "port": self.server.port, "topic": f"{self.name}/#", "client_id": self.name}

    def sink(self):
        return {"host": "127.0.0.1", "port": self.server.port, "topic": self.name, "client_id": f"{self.name}-out"}

    def _words(self, program):
        return [program, "-h", "127.0.0.1", "-p", str(self.server.port), "-V", "mqttv5", "-q", "1"]

    async def prepare(self):
        """Let Mosquitto keep what is sent while nobody listens: who reads the test's topic has a session."""
        words = [*self._words("mosquitto_sub"), "-t", self.name, "-i", f"{self.name}-ear", "-c", "-x", "3600", "-E"]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=20)
        self.heard = []

    async def put(self, messages):
        for data, headers in messages:
            named = itertools.chain.from_iterable(("-D", "publish", "user-property", k, v) for k, v in headers.items())
            words = [*self._words("mosquitto_pub"), "-t", f"{self.name}/x", "-s", *named]
            await asyncio.to_thread(subprocess.run, words, input=data, check=True, timeout=20)

    async def got(self):
        ear = [*self._words("mosquitto_sub"), "-t", self.name, "-i", f"{self.name}-ear", "-c", "-x", "3600"]
        words = [*ear, "-W", "1", "-F", "%p\t%P"]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, timeout=20)
        for line in done.stdout.splitlines():
            data, _, body = line.partition(b"\t")
            self.heard.append((data, dict(pair.split(":", 1) for pair in body.decode().split(" ") if ":" in pair)))
        return self.heard
