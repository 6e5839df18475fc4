"""The listener's process is killed in the middle of a QoS 2 exchange of a real client: its event is stored once."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.wire.mqtt.packets import Type
from tests.product import ROOT, Product, eventually
from tests.scenarios.test_survival import WITHIN_S, channel_of, stored

pytestmark = pytest.mark.xdist_group("product")
LISTENER = """
import socket, sys, uvloop
from apimgmt import env
from gateway.server.mqtt import run
listening = socket.socket(fileno=int(sys.argv[1]))
uvloop.run(run(env.gateway_config("mqtt", 2), listening, lambda: print("serves", flush=True)))
"""
EVENTS = 20
AT = (Type.PUBLISH, Type.PUBREC, Type.PUBREL, Type.PUBCOMP)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    product = Product(tmp_path_factory.mktemp("qos2") / "var", "--workers", "1")
    yield product
    product.stop()


@pytest.fixture(scope="module")
def other_port(product):
    """Run a second listener of the same product, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-c", LISTENER, str(listening.fileno())],
            cwd=ROOT,
            env=product.environment | {"DATA_DIR": str(product.data_dir)},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"serves\n"
        yield listening.getsockname()[1]
        process.terminate()
        process.wait(WITHIN_S)
        process.stdout.close()


class Line:
    """A TCP proxy before a listener that kills its process at the n-th packet of a type, which is passed on no more.

    A PUBLISH is passed on first: the process is killed while it stores it. Then it leads to another port, if there is
    one.
    """

    def __init__(self, product, at, nth=5, then_port=None):
        self._product, self._at, self._left = product, at, nth
        self._port, self._then_port = product.mqtt_port, then_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.has_killed = threading.Event()
        self._threads, self._ends = [], []
        self._start(self._accept)

    def close(self):
        for end in (self._listener, *self._ends):
            shut(end)
        for thread in self._threads:
            thread.join(WITHIN_S)
        for end in (self._listener, *self._ends):
            end.close()

    def _start(self, run, *arguments):
        self._threads.append(threading.Thread(target=run, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                self._ends += (client, server)
                self._start(self._pass, client, server)
                self._start(self._pass, server, client)

    def _pass(self, source, sink):
        with contextlib.suppress(OSError, EOFError):
            while True:
                packet = read_packet(source)
                is_last = packet[0] >> 4 == self._at and not self.has_killed.is_set() and self._is_nth()
                if not is_last or self._at is Type.PUBLISH:
                    sink.sendall(packet)
                if is_last:
                    self._kill()
        shut(source)
        shut(sink)

    def _is_nth(self):
        self._left -= 1
        return self._left == 0

    def _kill(self):
        for pid in self._product.reread()["processes"]["mqtt"]:
            os.kill(pid, signal.SIGKILL)
        self._port = self._then_port or self._port
        self.has_killed.set()


def shut(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def read_packet(source):
    """Return the next packet of a connection, as it came."""
    head = _exactly(source, 2)
    while head[-1] & 0x80:
        head += _exactly(source, 1)
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1:]))
    return head + _exactly(source, length)


def _exactly(source, count):
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def client_of(version, key):
    """Return paho with a session that lasts, as its version has it."""
    name, is_v5 = f"till-{os.urandom(4).hex()}", version == paho.MQTTv5
    client = paho.Client(
        CallbackAPIVersion.VERSION2, name, protocol=version, **({} if is_v5 else {"clean_session": False})
    )
    client.username_pw_set("bench", key)
    client.reconnect_delay_set(1, 1)
    return client


def connect(client, version, port):
    if version == paho.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    else:
        client.connect("127.0.0.1", port)
    client.loop_start()


@pytest.mark.parametrize("goes_elsewhere", [False, True], ids=["same port", "other process"])
@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("at", AT, ids=[f"at {type_.name}" for type_ in AT])
def test_paho_sends_again_what_the_killed_process_left_open_and_each_event_is_stored_once(
    product, other_port, at, version, goes_elsewhere
):
    channel, after = channel_of(product)
    line = Line(product, at, then_port=other_port if goes_elsewhere else None)
    client, completed = client_of(version, product.ready["keys"]["bench"]), set()
    client.on_publish = lambda client, data, mid, *more: completed.add(mid)
    try:
        connect(client, version, line.port)
        mids = {client.publish(channel, json.dumps({"n": number}), qos=2).mid for number in range(EVENTS)}
        eventually(line.has_killed.is_set, WITHIN_S)
        eventually(lambda: completed >= mids, WITHIN_S)
        assert sorted(n for _, n in stored(product, channel, after)) == [*range(EVENTS)]
    finally:
        client.disconnect()
        client.loop_stop()
        line.close()
        eventually(lambda: serves(product.mqtt_port), WITHIN_S)


def serves(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
