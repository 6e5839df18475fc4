"""What was acknowledged arrives, whoever is killed meanwhile; and who is asked to leave, leaves nothing half done."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import threading
import time
import uuid

import paho.mqtt.client as paho
import pytest
import websockets
import websockets.sync.client
from paho.mqtt.enums import CallbackAPIVersion

from tests.product import Product, eventually

pytestmark = pytest.mark.xdist_group("product")
KINDS = ("redis", "nats", "web", "worker", "beat", "projector", "mqtt")
BEFORE, AFTER = 20, 20
"""How many events each publisher gets acknowledged before the kill and after it."""
WITHIN_S = 40


@pytest.fixture(scope="module")
def hurt(tmp_path_factory):
    """One product that the tests of this module may hurt."""
    product = Product(tmp_path_factory.mktemp("survival") / "var", "--workers", "2")
    yield product
    product.stop()


class Reader(threading.Thread):
    """Reads a channel, coming back with its last id as often as it is thrown out; keeps what it saw, in order."""

    def __init__(self, product, channel, after):
        super().__init__(daemon=True)
        self.product, self.channel, self.last = product, channel, after
        self.seen = []
        self.returns = -1
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            self.returns += 1
            with contextlib.suppress(OSError, http.client.HTTPException, websockets.WebSocketException, TimeoutError):
                self.read()
            time.sleep(0.1)

    def saw(self, id_, data):
        self.last = id_
        self.seen.append((int(id_), data["n"]))


class SocketReader(Reader):
    def read(self):
        url, key = f"{self.product.ws_url}/v1/stream", self.product.ready["keys"]["bench"]
        with websockets.sync.client.connect(url, additional_headers={"X-API-Key": key}, open_timeout=5) as socket:
            socket.send(json.dumps({"type": "subscribe", "channel": self.channel, "from": self.last}))
            while not self.over.is_set():
                with contextlib.suppress(TimeoutError):
                    frame = json.loads(socket.recv(0.5))
                    assert frame["type"] != "gap"
                    if frame["type"] == "error":
                        return  # the log is away: come back
                    if frame["type"] == "event":
                        self.saw(frame["id"], frame["data"])


class EventSourceReader(Reader):
    def read(self):
        caller = http.client.HTTPConnection("127.0.0.1", self.product.port, timeout=2)
        try:
            key = self.product.ready["keys"]["bench"]
            headers = {"X-API-Key": key, "Last-Event-ID": self.last}
            caller.request("GET", f"/v1/events?channel={self.channel}", headers=headers)
            answer = caller.getresponse()
            if answer.status == 200:
                self._events(answer)
        finally:
            caller.close()

    def _events(self, answer):
        """Read until the stream ends; one that is quiet is left after the timeout, and come back to."""
        id_ = ""
        while not self.over.is_set() and (line := answer.readline().decode()):
            name, _, value = line.rstrip("\n").partition(": ")
            assert (name, value) != ("event", "gap")
            if name == "id":
                id_ = value
            elif name == "data" and id_:
                self.saw(id_, json.loads(value))
                id_ = ""


class RestPublisher:
    """Publishes one after the other, each again until it is acknowledged; its key makes that safe."""

    def __init__(self, product, channel):
        self.product, self.path = product, f"/v1/channels/{channel}/events"

    def publish(self, number):
        named = {"Idempotency-Key": uuid.uuid4().hex}
        eventually(lambda: self._is_acknowledged(number, named), WITHIN_S)

    def _is_acknowledged(self, number, named):
        try:
            key = self.product.ready["keys"]["bench"]
            status, _, body = self.product.call("POST", self.path, {"n": number}, key, named)
        except (OSError, http.client.HTTPException):
            return False
        assert status in (201, 503, 429), body
        return status == 201


class MqttPublisher:
    """Publishes at QoS 1; what was not acknowledged paho sends again once it is connected again."""

    kind, qos, session = paho.Client, 1, {"clean_session": True}

    def __init__(self, product, channel):
        self.channel = channel
        self.client = self.kind(CallbackAPIVersion.VERSION2, **self.session)
        self.client.username_pw_set("bench", product.ready["keys"]["bench"])
        self.client.reconnect_delay_set(1, 1)
        self.acknowledged = set()
        self.client.on_publish = lambda client, data, mid, *more: self.acknowledged.add(mid)
        self.client.connect("127.0.0.1", product.mqtt_port)
        self.client.loop_start()

    def publish(self, number):
        # What is published while the line is down is kept, but what `publish` gives does not tell of it any more.
        sent = self.client.publish(self.channel, json.dumps({"n": number}), qos=self.qos)
        eventually(lambda: sent.mid in self.acknowledged, WITHIN_S)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def channel_of(product):
    """Make a channel of this test's own that the gateway knows; gives its address and the position before all."""
    name = f"survival-{uuid.uuid4().hex[:8]}"
    product.admin("POST", "channels/", {"address": name})
    key = product.ready["keys"]["bench"]
    path = f"/v1/channels/{name}/events"
    eventually(lambda: product.call("POST", path, {"n": -1}, key)[0] == 201)
    (event,) = product.call("GET", path, key=key)[2]["results"]
    return name, event["id"]


def stored(product, channel, after):
    """Return all events after a position, read page by page, as (id, n)."""
    key, found = product.ready["keys"]["bench"], []
    while True:
        status, _, page = product.call("GET", f"/v1/channels/{channel}/events?after={after}&limit=50", key=key)
        assert status == 200
        if not page["results"]:
            return found
        found += [(int(event["id"]), event["data"]["n"]) for event in page["results"]]
        after = page["results"][-1]["id"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_acknowledged_reaches_everybody_whoever_is_killed(hurt, kind):
    hurt.reread()
    channel, after = channel_of(hurt)
    readers = [SocketReader(hurt, channel, after), EventSourceReader(hurt, channel, after)]
    for reader in readers:
        reader.start()
    rest, mqtt = RestPublisher(hurt, channel), MqttPublisher(hurt, channel)
    numbers = itertools.count()
    victims = set(hurt.ready["processes"][kind])
    try:
        acknowledged = publish(rest, mqtt, numbers, BEFORE)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        acknowledged |= publish(rest, mqtt, numbers, AFTER)
        for reader in readers:
            eventually(lambda reader=reader: acknowledged <= {n for _, n in reader.seen}, WITHIN_S)
    finally:
        mqtt.close()
        for reader in readers:
            reader.over.set()
        for reader in readers:
            reader.join(10)
    kept = eventually(lambda: stored(hurt, channel, after), WITHIN_S)
    assert {n for _, n in kept} == acknowledged
    of_rest = [n for _, n in kept if n % 2 == 0]
    assert of_rest == sorted(set(of_rest))  # once and in order, however often it was asked again
    for reader in readers:
        assert [id_ for id_, _ in reader.seen] == [id_ for id_, _ in kept], f"{type(reader).__name__} of {kind}"
    eventually(lambda: not victims & set(hurt.reread()["processes"][kind]))
    eventually(lambda: len(hurt.reread()["processes"][kind]) == len(victims))
    wait_until_ready(hurt)


def wait_until_ready(product):
    """Wait until every engine answers in time again; a failure says which does not."""
    ends_at = time.monotonic() + WITHIN_S
    while (answer := product.call("GET", "/readyz"))[0] != 200:
        assert time.monotonic() < ends_at, answer
        time.sleep(0.1)


def publish(rest, mqtt, numbers, count):
    """Publish over both doors in turn: even numbers over REST, odd ones over MQTT. Gives what was acknowledged."""
    done = set()
    for number in itertools.islice(numbers, count):
        (mqtt if number % 2 else rest).publish(number)
        done.add(number)
    return done


class Caller(threading.Thread):
    """Calls through a route until nobody serves any more; keeps what it was told."""

    def __init__(self, product):
        super().__init__(daemon=True)
        self.product = product
        self.statuses = []
        self.faults = []

    def run(self):
        caller = http.client.HTTPConnection("127.0.0.1", self.product.port, timeout=20)
        while True:
            try:
                caller.request("POST", "/echo", b"x" * 20_000, {"X-API-Key": self.product.ready["keys"]["bench"]})
                answer = caller.getresponse()
            except ConnectionRefusedError:
                return
            except (OSError, http.client.HTTPException):
                caller.close()  # told nothing at all: a client may ask again
                continue
            if not self._reads(answer):
                return

    def _reads(self, answer):
        try:
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as fault:
            self.faults.append(f"{answer.status}: half an answer: {fault!r}")
            return False
        self.statuses.append(answer.status)
        if answer.status == 200 and len(body["body"]) != 20_000:
            self.faults.append("a body that is not the one that was sent")
        elif answer.status == 503 and body["reason"] != "draining":
            self.faults.append(body["reason"])
        return True


def test_told_to_leave_under_load_it_answers_whole_and_takes_leave_of_sockets(tmp_path):
    product = Product(tmp_path / "var", "--workers", "2")
    callers = [Caller(product) for _ in range(4)]
    headers = {"X-API-Key": product.ready["keys"]["bench"]}
    try:
        with websockets.sync.client.connect(f"{product.ws_url}/v1/stream", additional_headers=headers) as socket:
            assert json.loads(socket.recv(5))["type"] == "welcome"
            for caller in callers:
                caller.start()
            eventually(lambda: all(len(caller.statuses) > 20 for caller in callers), 30)
            product.process.send_signal(signal.SIGTERM)
            body = json.loads(socket.recv(20))
            assert body["type"] == "reconnect"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                socket.recv(20)
            assert closed.value.rcvd.code == 1012
        assert product.process.wait(40) == 0
        for caller in callers:
            caller.join(20)
            assert not caller.is_alive()
    finally:
        product.process.kill()
        product.process.wait()
    assert [fault for caller in callers for fault in caller.faults] == []
    assert {status for caller in callers for status in caller.statuses} <= {200, 503}
    assert "killed" not in product.printed()
