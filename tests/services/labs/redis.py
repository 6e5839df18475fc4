"""Redis Streams in a lab."""

from __future__ import annotations

from redis import Redis

from gateway.tests.valkey_server import ValkeyServer
from tests.services.labs.lab import Lab


class RedisLab(Lab):
    type = "redis-streams"
    prefix = "ce-"

    def __init__(self, folder):
        super().__init__(folder)
        self.server = ValkeyServer(folder)

    def start(self):
        self.server.start()

    def stop(self):
        self.server.stop()

    def source(self):
        return {"url": self.server.url, "stream": self.name, "group": "g"}

    def sink(self):
        return {"url": self.server.url, "stream": self.name}

    async def put(self, messages):
        with Redis.from_url(self.server.url) as client:
            for data, headers in messages:
                client.xadd(self.name, {"data": data, **headers})

    async def got(self):
        with Redis.from_url(self.server.url) as client:
            found = []
            for _, fields in client.xrange(self.name):
                texts = {k.decode(): v.decode() for k, v in fields.items() if k != b"data"}
                found.append((fields[b"data"], texts))
            return found
