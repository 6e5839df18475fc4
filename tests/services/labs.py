"""Each broker as the tests of connectors see it: something to put messages into, and to look what came out of it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aio_pika
import boto3
import nats
import orjson
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic
from moto.server import ThreadedMotoServer
from redis import Redis

from gateway.tests.nats_server import NatsServer
from gateway.tests.valkey_server import ValkeyServer
from tests.services.brokers import Kafka, Mosquitto, RabbitMq


class Lab:
    """A running broker. ``put`` and ``got`` speak of (data, headers); names are fresh for each test."""

    type = ""
    can_restart = True
    is_source = True
    is_ordered = True
    keeps_ids = True
    """Sets message ids, so that a redelivered message is stored once."""
    secrets: dict[str, str] = {}  # noqa: RUF012
    bound_bytes = 0
    """What ``bind`` makes the most that one message may hold; 0: it cannot."""

    def __init__(self, folder):
        self.name = f"t{uuid.uuid4().hex[:10]}"

    def fresh(self):
        self.name = f"t{uuid.uuid4().hex[:10]}"

    def start(self): ...

    def stop(self): ...

    async def prepare(self):
        """Make what a connector expects to be there."""


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
            data, _, said = line.partition(b"\t")
            self.heard.append((data, dict(pair.split(":", 1) for pair in said.decode().split(" ") if ":" in pair)))
        return self.heard


class AwsLab(Lab):
    """SQS and SNS as moto plays them: no AWS can be had in a test."""

    can_restart = False
    is_ordered = False
    prefix = "ce-"
    secrets = {"CONNECTOR_ID": "id", "CONNECTOR_SECRET": "secret"}  # noqa: RUF012

    def __init__(self, folder):
        super().__init__(folder)
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def start(self):
        self.server.start()
        self.url = "http://{}:{}".format(*self.server.get_host_and_port())

    def stop(self):
        self.server.stop()

    def client(self, service):
        return boto3.client(
            service,
            region_name="eu-central-1",
            endpoint_url=self.url,
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )

    def fresh(self):
        super().fresh()
        self.found = {}

    @property
    def link(self):
        return {
            "region": "eu-central-1",
            "endpoint_url": self.url,
            "access_key_id": "${CONNECTOR_ID}",
            "secret_access_key": "${CONNECTOR_SECRET}",
        }

    async def prepare(self):
        self.queue_url = self.client("sqs").create_queue(QueueName=self.name)["QueueUrl"]

    async def put(self, messages):
        for data, headers in messages:
            attributes = {name: {"DataType": "String", "StringValue": value} for name, value in headers.items()}
            self.client("sqs").send_message(
                QueueUrl=self.queue_url, MessageBody=data.decode(), MessageAttributes=attributes
            )

    async def got(self):
        client = self.client("sqs")
        while messages := client.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in messages:
                self.found[message["MessageId"]] = self._read(message)
        return list(self.found.values())

    def _read(self, message):
        said = message.get("MessageAttributes", {})
        return message["Body"].encode(), {name: value["StringValue"] for name, value in said.items()}

    def source(self):
        return self.link | {"queue_url": self.queue_url}


class SqsLab(AwsLab):
    type = "sqs"

    def sink(self):
        return self.link | {"queue_url": self.queue_url}


class SnsLab(AwsLab):
    type = "sns"
    is_source = False

    async def prepare(self):
        await super().prepare()
        self.topic_arn = self.client("sns").create_topic(Name=self.name)["TopicArn"]
        queue_arn = self.client("sqs").get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])
        self.client("sns").subscribe(
            TopicArn=self.topic_arn, Protocol="sqs", Endpoint=queue_arn["Attributes"]["QueueArn"]
        )

    def sink(self):
        return self.link | {"topic_arn": self.topic_arn}

    def _read(self, message):
        envelope = orjson.loads(message["Body"])
        said = envelope["MessageAttributes"]
        return envelope["Message"].encode(), {name: value["Value"] for name, value in said.items()}


class PubsubLab(Lab):
    """The calls of Pub/Sub's REST interface that a client makes, as its documentation describes them.

    Google's emulator comes with its own tools alone; this keeps messages, hands them out and takes acknowledgements.
    """

    type = "google-pubsub"
    can_restart = False
    prefix = "ce-"

    def __init__(self, folder):
        super().__init__(folder)
        lab = self
        self.messages, self.acknowledged, self.numbers = [], set(), itertools.count(1)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.say({"name": self.path})

            def do_POST(self):
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                verb = self.path.rpartition(":")[2]
                self.say({"publish": lab.publish, "pull": lab.pull, "acknowledge": lab.acknowledge}[verb](body))

            def say(self, said):
                data = orjson.dumps(said)
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args): ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def publish(self, body):
        ids = []
        for message in body["messages"]:
            id_ = str(next(self.numbers))
            self.messages.append(message | {"messageId": id_, "publishTime": "2026-03-01T12:00:00Z"})
            ids.append(id_)
        return {"messageIds": ids}

    def pull(self, body):
        left = [message for message in self.messages if message["messageId"] not in self.acknowledged]
        return {
            "receivedMessages": [
                {"ackId": message["messageId"], "message": message} for message in left[: body["maxMessages"]]
            ]
        }

    def acknowledge(self, body):
        self.acknowledged.update(body["ackIds"])
        return {}

    def fresh(self):
        super().fresh()
        self.messages, self.acknowledged = [], set()

    def start(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def link(self):
        return {"project": "p", "endpoint": f"http://127.0.0.1:{self.server.server_port}/v1"}

    def source(self):
        return self.link | {"subscription": self.name}

    def sink(self):
        return self.link | {"topic": self.name}

    async def put(self, messages):
        body = [{"data": base64.b64encode(data).decode(), "attributes": headers} for data, headers in messages]
        self.publish({"messages": body})

    async def got(self):
        return [(base64.b64decode(message["data"]), message["attributes"]) for message in self.messages]


LABS = {lab.type: lab for lab in (KafkaLab, RabbitLab, NatsLab, RedisLab, MqttLab, SqsLab, SnsLab, PubsubLab)}
