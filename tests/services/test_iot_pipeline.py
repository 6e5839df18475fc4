"""The pipeline of docs/connectors.md: sensors speak MQTT, Kafka carries the readings, browsers hear of alerts."""

import contextlib
import json
import subprocess
import urllib.request

import pytest
import websockets.sync.client
from confluent_kafka import Consumer, Producer

from tests.product import Product, eventually, tool
from tests.services.brokers import Kafka

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    server = Kafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def product(tmp_path_factory, kafka):
    running = Product(tmp_path_factory.mktemp("pipeline") / "var")
    running.admin("POST", "channels", {"address": "alerts", "title": "Readings that are too high"})
    link = {"bootstrap_servers": kafka.servers}
    running.admin(
        "POST",
        "connectors",
        {
            "name": "readings-to-kafka",
            "type": "kafka",
            "direction": "sink",
            "channel": "sensors/{deviceId}/temperature",
            "options": link | {"topic": "readings"},
        },
    )
    running.admin(
        "POST",
        "connectors",
        {
            "name": "alerts-from-kafka",
            "type": "kafka",
            "direction": "source",
            "channel": "alerts",
            "options": link | {"topic": "alerts", "group": "apimgmt"},
        },
    )
    yield running
    running.stop()


def mqtt(product, topic, reading):
    host, port = product.ready["mqtt"].split(":")
    words = [tool("mosquitto_pub"), "-h", host, "-p", port, "-V", "mqttv5", "-q", "1", "-t", topic]
    key = product.ready["keys"]["gold"]
    subprocess.run([*words, "-u", "x", "-P", key, "-m", json.dumps(reading)], check=True, timeout=20)


def running(product, name):
    return product.admin("GET", f"connectors/{name}")["health"]["state"] == "running"


def of_the_oven(message):
    """Return a message about this device; the demo's sensors publish too."""
    return message if message and not message.error() and message.key() == b"sensors/oven/temperature" else None


def test_readings_go_from_mqtt_through_kafka_to_websocket_and_sse(product, kafka):
    eventually(lambda: running(product, "readings-to-kafka") and running(product, "alerts-from-kafka"), 60)
    key = product.ready["keys"]["gold"]
    request = urllib.request.Request(f"{product.base_url}/v1/events?channel=alerts", headers={"X-API-Key": key})
    with (
        contextlib.closing(
            Consumer({"bootstrap.servers": kafka.servers, "group.id": "detector", "auto.offset.reset": "earliest"})
        ) as consumer,
        websockets.sync.client.connect(f"{product.ws_url}/v1/stream", additional_headers={"X-API-Key": key}) as socket,
        urllib.request.urlopen(request, timeout=30) as stream,
    ):
        socket.send(json.dumps({"type": "subscribe", "channel": "alerts"}))
        while json.loads(socket.recv(20))["type"] != "subscribed":
            pass
        mqtt(product, "sensors/oven/temperature", {"deviceId": "oven", "value": 240.5})
        # What a business runs on Kafka: here, one that looks for readings that are too high.
        consumer.subscribe(["readings"])
        reading = eventually(lambda: of_the_oven(consumer.poll(1)), 60)
        assert dict(reading.headers())["ce_channel"] == b"sensors/oven/temperature"
        producer = Producer({"bootstrap.servers": kafka.servers})
        producer.produce("alerts", json.dumps({"alert": "too hot", "of": json.loads(reading.value())}))
        producer.flush(20)
        event = json.loads(socket.recv(30))
        assert event["data"] == {"alert": "too hot", "of": {"deviceId": "oven", "value": 240.5}}
        line = next(line for line in stream if line.startswith(b"data: "))
        assert json.loads(line[6:]) == event["data"]


def test_a_connector_says_what_is_wrong_and_runs_once_it_is_mended(product):
    answer = product.admin(
        "POST",
        "connectors",
        {
            "name": "nowhere",
            "type": "redis-streams",
            "direction": "sink",
            "channel": "alerts",
            "options": {"url": "redis://127.0.0.1:1"},
        },
    )
    assert answer["is_active"]

    def failing():
        health = product.admin("GET", "connectors/nowhere")["health"]
        return health["state"] == "failing" and health["error"]

    assert "Redis" in eventually(failing, 30)
    product.admin("DELETE", "connectors/nowhere")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "carrier-pigeon"}, "type"),
        ({"type": "sns", "direction": "source"}, "type"),
        ({"channel": "nowhere"}, "channel"),
        ({"options": {"topic": "t"}}, "options.bootstrap_servers"),
        ({"options": {"bootstrap_servers": "b", "topic": "t", "colour": "red"}}, "options.colour"),
        ({"options": {"bootstrap_servers": "b", "topic": "t", "password": "plain"}}, "options.password"),
        ({"options": {"bootstrap_servers": "${SECRET_KEY}", "topic": "t"}}, "options.bootstrap_servers"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_connector_that_cannot_be_is_refused_with_its_field(product, change, field):
    body = {
        "name": "x",
        "type": "kafka",
        "direction": "sink",
        "channel": "alerts",
        "options": {"bootstrap_servers": "b", "topic": "t"},
    } | change
    token = product.ready["admin"]["token"]
    status, _, problem = product.call("POST", "/api/v1/connectors", body, headers={"Authorization": f"Token {token}"})
    assert status == 400
    assert field in json.dumps(problem)
