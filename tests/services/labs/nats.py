"""NATS with JetStream in a lab."""

from __future__ import annotations

import nats

from gateway.tests.nats_server import NatsServer
from tests.services.labs.lab import Lab


class NatsLab(Lab):
    type = "nats"
    prefix = "ce-"

    def __init__(self, folder):
        super().__init__(folder)
        self.server = NatsServer(folder)

    def start(self):
        self.server.start()

    def stop(self):
        self.server.kill()

    def source(self):
        return {"url": self.server.url, "stream": self.name, "durable": "d"}

    def sink(self):
        return {"url": self.server.url, "subject": f"{self.name}.{{subject}}"}

    async def prepare(self):
        client = await nats.connect(self.server.url)
        await client.jetstream().add_stream(name=self.name, subjects=[f"{self.name}.>"])
        await client.close()

    bound_bytes = 2000

    async def bind(self):
        client = await nats.connect(self.server.url)
        config = (await client.jetstream().stream_info(self.name)).config
        config.max_msg_size = self.bound_bytes
        await client.jetstream().update_stream(config)
        await client.close()

    async def put(self, messages):
        client = await nats.connect(self.server.url)
        for data, headers in messages:
            await client.jetstream().publish(f"{self.name}.x", data, headers=headers or None)
        await client.close()

    async def got(self):
        client = await nats.connect(self.server.url)
        js = client.jetstream()
        found = []
        state = (await js.stream_info(self.name)).state
        for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
            message = await js.get_msg(self.name, sequence)
            found.append((message.data, dict(message.headers or {})))
        await client.close()
        return found
