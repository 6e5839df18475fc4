"""Processes are killed at random while events come in by every door: nothing acknowledged is lost, nothing invented."""

import contextlib
import itertools
import json
import os
import random
import signal
import threading
import uuid
from collections import Counter

import paho.mqtt.client as paho
import pytest
import websockets
import websockets.sync.client
from paho.mqtt.enums import MessageState

from tests.product import Product, eventually
from tests.scenarios.test_survival import (
    WITHIN_S,
    EventSourceReader,
    MqttPublisher,
    RestPublisher,
    SocketReader,
    channel_of,
    stored,
)

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(300)]
KILLS = 8
BETWEEN = 40
"""How many events are acknowledged between two kills."""
KINDS = ("web", "web", "web", "nats", "mqtt", "redis")


class ArrayPublisher(RestPublisher):
    """Publishes three at once."""

    def publish(self, *numbers):
        named = {"Idempotency-Key": uuid.uuid4().hex}
        eventually(lambda: self._are_acknowledged(numbers, named), WITHIN_S)

    def _are_acknowledged(self, numbers, named):
        key, body = self.product.ready["keys"]["bench"], [{"n": n} for n in numbers]
        with contextlib.suppress(OSError):
            status, _, answer = self.product.call("POST", self.path, body, key, named)
            assert status in (201, 503), answer
            return status == 201
        return False


class SocketPublisher:
    """Publishes on a socket, each again on the next one until it is acknowledged."""

    def __init__(self, product, channel):
        self.product, self.channel = product, channel
        self.socket = None
        self._held = contextlib.ExitStack()

    def publish(self, number):
        frame = {"type": "publish", "channel": self.channel, "data": {"n": number}, "ref": f"{number}", "dedupe": True}
        eventually(lambda: self._is_acknowledged(frame), WITHIN_S)

    def _is_acknowledged(self, frame):
        try:
            self.socket = self.socket or self._connected()
            self.socket.send(json.dumps(frame))
            answer = json.loads(self.socket.recv(10))
        except (OSError, websockets.WebSocketException):
            self.close()
            return False
        assert answer["type"] == "published" or answer["reason"] == "overloaded", answer
        return answer["type"] == "published"

    def _connected(self):
        headers = {"X-API-Key": self.product.ready["keys"]["bench"]}
        url = f"{self.product.ws_url}/v1/stream"
        socket = self._held.enter_context(
            websockets.sync.client.connect(url, additional_headers=headers, open_timeout=5, close_timeout=1)
        )
        socket.recv(10)
        return socket

    def close(self):
        self.socket = None
        self._held.close()


class RememberingClient(paho.Client):
    """Knows what it has released: paho 2 forgets it after two failed attempts to connect, and publishes it anew."""

    def _messages_reconnect_reset_out(self):
        released = [one for one in self._out_messages.values() if one.state == MessageState.MQTT_MS_RESEND_PUBREL]
        super()._messages_reconnect_reset_out()
        for one in released:
            one.state = MessageState.MQTT_MS_RESEND_PUBREL


class Qos2Publisher(MqttPublisher):
    """Publishes at QoS 2 in a session that lasts."""

    kind = RememberingClient

    def __init__(self, product, channel):
        self.qos, self.session = 2, {"client_id": f"till-{uuid.uuid4().hex[:8]}", "clean_session": False}
        super().__init__(product, channel)


class TwoChannelsReader(EventSourceReader):
    """Reads a second channel on the same event stream, of which it keeps nothing: its ids have two parts."""

    def __init__(self, product, channel, after, other, after_other):
        both = sorted([(channel, after), (other, after_other)])
        super().__init__(product, "&channel=".join(address for address, _ in both), "-".join(at for _, at in both))
        self.part = both.index((channel, after))

    def saw(self, id_, data):
        before, now = (position.split("-")[self.part] for position in (self.last, id_))
        self.last = id_
        if now != before:
            self.seen.append((int(now), data["n"]))


class Load:
    """Publishers that go on until they are told to stop, and what they sent and were told is kept."""

    def __init__(self, publishers):
        self.sent, self.acknowledged, self.faults = {}, set(), []
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=one, daemon=True) for one in publishers]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        for thread in self._threads:
            thread.join(2 * WITHIN_S)

    def _run(self, publisher, at_once):
        while not self._over.is_set():
            numbers = [next(self._numbers) for _ in range(at_once)]
            self.sent.update(dict.fromkeys(numbers, type(publisher)))
            try:
                publisher.publish(*numbers)
            except Exception as fault:
                self.faults.append(fault)
                return
            self.acknowledged.update(numbers)


def kill_at_random(product, load, dice):
    """Kill one process after the other, each once some more was acknowledged."""
    for _ in range(KILLS):
        before = len(load.acknowledged)
        eventually(lambda before=before: load.faults or len(load.acknowledged) >= before + BETWEEN, WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(product.reread()["processes"][dice.choice(KINDS)]), signal.SIGKILL)
    after = len(load.acknowledged)
    eventually(lambda: load.faults or len(load.acknowledged) >= after + BETWEEN, WITHIN_S)


def test_processes_killed_at_random_under_load_lose_nothing_and_invent_nothing(tmp_path):
    seed = random.randrange(2**32)
    product = Product(tmp_path / "var", "--workers", "2")
    try:
        (channel, after), (other, after_other) = channel_of(product), channel_of(product)
        readers = [reader(product, channel, after) for reader in (SocketReader, EventSourceReader) * 2]
        readers.append(TwoChannelsReader(product, channel, after, other, after_other))
        for reader in readers:
            reader.start()
        mqtt, qos_2 = MqttPublisher(product, channel), Qos2Publisher(product, channel)
        socket = SocketPublisher(product, channel)
        rest, array = RestPublisher(product, channel), ArrayPublisher(product, channel)
        aside = Load([(RestPublisher(product, other), 1)])
        with Load([(rest, 1), (array, 3), (socket, 1), (mqtt, 1), (qos_2, 1)]) as load, aside:
            kill_at_random(product, load, random.Random(seed))
        mqtt.close()
        qos_2.close()
        socket.close()
        assert not load.faults + aside.faults, (seed, load.faults, aside.faults)
        kept = eventually(lambda: stored(product, channel, after), WITHIN_S)
        numbers = [n for _, n in kept]
        assert load.acknowledged <= set(numbers) <= set(load.sent), seed
        for reader in readers:
            eventually(lambda reader=reader: len(reader.seen) >= len(kept), WITHIN_S)
            reader.over.set()
        for reader in readers:
            reader.join(10)
            assert reader.seen == kept, (seed, type(reader).__name__)
        # At least once at QoS 1, by the protocol; once at QoS 2 and by the other doors, which have a key for each.
        assert {load.sent[n] for n, count in Counter(numbers).items() if count > 1} <= {MqttPublisher}, seed
    finally:
        product.stop()
