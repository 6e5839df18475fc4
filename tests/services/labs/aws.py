"""SQS and SNS in a lab: moto's stand-ins."""

from __future__ import annotations

import boto3
import orjson
from moto.server import ThreadedMotoServer

from tests.services.labs.lab import Lab


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
        body = message.get("MessageAttributes", {})
        return message["Body"].encode(), {name: value["StringValue"] for name, value in body.items()}

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
        body = envelope["MessageAttributes"]
        return envelope["Message"].encode(), {name: value["Value"] for name, value in body.items()}
