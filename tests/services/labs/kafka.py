"""Kafka in a lab."""

from __future__ import annotations

import asyncio
import time
import uuid

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.services.brokers import Kafka
from tests.services.labs.lab import Lab


class KafkaLab(Lab):
    type = "kafka"

    def __init__(self, folder):
        super().__init__(folder)
        self.server = Kafka(folder)

    def start(self):
        self.server.start()

    def stop(self):
        self.server.stop()

    def source(self):
        return {"bootstrap_servers": self.server.servers, "topic": self.name, "group": f"g-{self.name}"}

    def sink(self):
        return {"bootstrap_servers": self.server.servers, "topic": self.name, "key": "one"}

    async def prepare(self):
        await asyncio.to_thread(self._make_topic)

    def _make_topic(self):
        admin = AdminClient({"bootstrap.servers": self.server.servers})
        admin.create_topics([NewTopic(self.name, num_partitions=2)])[self.name].result(30)

    def make_anew(self):
        admin = AdminClient({"bootstrap.servers": self.server.servers})
        admin.delete_topics([self.name])[self.name].result(30)
        ends_at = time.monotonic() + 30
        while True:  # until it is gone
            try:
                return self._make_topic()
            except KafkaException:
                assert time.monotonic() < ends_at
                time.sleep(0.2)

    bound_bytes = 2000

    async def bind(self):
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name)
        resource.add_incremental_config(
            ConfigEntry("max.message.bytes", str(self.bound_bytes), incremental_operation=AlterConfigOpType.SET)
        )
        admin = AdminClient({"bootstrap.servers": self.server.servers})
        await asyncio.to_thread(admin.incremental_alter_configs([resource])[resource].result, 30)

    async def put(self, messages):
        await asyncio.to_thread(
            self.put_raw, [(data, [(k, v.encode()) for k, v in headers.items()]) for data, headers in messages]
        )

    def put_raw(self, records):
        producer = KafkaProducer({"bootstrap.servers": self.server.servers})
        for data, headers in records:
            producer.produce(self.name, data, key=b"one", headers=headers)
        producer.flush(30)

    async def got(self):
        return await asyncio.to_thread(self._got)

    def _got(self):
        consumer = KafkaConsumer({"bootstrap.servers": self.server.servers, "group.id": uuid.uuid4().hex})
        try:
            found = []
            for partition in range(2):
                low, high = self._bounds(consumer, partition)
                consumer.assign([TopicPartition(self.name, partition, low)])
                while low < high:
                    message = consumer.poll(10)
                    if message is not None and message.error() is None:
                        low = message.offset() + 1
                        found.append((message.value(), {k: v.decode() for k, v in message.headers() or ()}))
            return found
        finally:
            consumer.close()

    def _bounds(self, consumer, partition):
        """Return the first and the next offset; a new topic may have no leader yet."""
        ends_at = time.monotonic() + 30
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(self.name, partition), timeout=10)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > ends_at:
                    raise
            time.sleep(0.1)

    prefix = "ce_"
