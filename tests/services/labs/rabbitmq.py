"""RabbitMQ in a lab."""

from __future__ import annotations

import aio_pika

from tests.services.brokers import RabbitMq
from tests.services.labs.lab import Lab


class RabbitLab(Lab):
    type = "rabbitmq"
    keeps_ids = False
    prefix = "cloudEvents:"

    def __init__(self, folder):
        super().__init__(folder)
        self.server = RabbitMq(folder)
        self.secrets = {"CONNECTOR_URL": self.server.url}

    def start(self):
        self.server.start()

    def stop(self):
        self.server.stop()

    def source(self):
        return {"url": "${CONNECTOR_URL}", "queue": self.name}

    def sink(self):
        return {"url": "${CONNECTOR_URL}", "routing_key": self.name}

    async def prepare(self):
        async with await aio_pika.connect(self.server.url) as connection, connection.channel() as channel:
            await channel.declare_queue(self.name, durable=True)

    async def put(self, messages):
        async with await aio_pika.connect(self.server.url) as connection, connection.channel() as channel:
            for data, headers in messages:
                message = aio_pika.Message(data, headers=headers, delivery_mode=2)
                await channel.default_exchange.publish(message, self.name)

    async def got(self):
        found = []
        async with await aio_pika.connect(self.server.url) as connection, connection.channel() as channel:
            queue = await channel.get_queue(self.name)
            while message := await queue.get(fail=False, no_ack=False):
                found.append((message.body, {k: str(v) for k, v in message.headers.items()}))
        return found  # unacknowledged: they are there again next time
