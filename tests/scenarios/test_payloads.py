"""Payloads that are no strict JSON within the bounds, at every door: refused by name, and nothing of them is kept."""

import gzip
import json
import threading

import paho.mqtt.client as paho
import pytest
import websockets
import websockets.sync.client
from paho.mqtt.enums import CallbackAPIVersion

from tests.product import eventually

pytestmark = pytest.mark.xdist_group("product")

PATH = "/v1/channels/trades/events"
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
DEEPEST = b"[" * 64 + b"]" * 64
HEAD = b'{"specversion":"1.0","id":"%d","source":"/tests","type":"t","data":'
BAD = {
    "NaN": b'{"a":NaN}',
    "Infinity": b"[-Infinity]",
    "5,000 digits": b'{"a":' + b"1" * 5_000 + b"}",
    "too large a number": b"[1e999]",
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "a member twice": b'{"x":[{"a":1,"a":2}]}',
    "a member twice, written otherwise": b'{"a":1,"\\u0061":2}',
    "a lone surrogate": b'{"a":"\\ud800"}',
    "a lone surrogate as a name": b'{"\\udc00":1}',
    "NUL": b'{"a":"\x00"}',
    "bad UTF-8": b'{"a":"\xff\xfe"}',
    "a surrogate as UTF-8": b'{"a":"\xed\xa0\x80"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf1",
    "half": b'{"a":',
    "two": b"{} {}",
    "none": b"",
}
cases = pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())


@pytest.fixture
def key(product):
    return product.ready["keys"]["bench"]


@pytest.fixture
def newest(product, key):
    """Return the id of an event published now; events stored since an earlier one have ids in between."""
    return lambda: int(product.call("POST", PATH, {"n": 0}, key)[2]["id"])


@pytest.fixture
def nothing_is_kept(newest):
    before = newest()
    yield
    assert newest() == before + 1


def doors(payload, number=0):
    """Return each form in which a payload is published over HTTP: body and content type."""
    head = HEAD % number
    yield payload, "application/json"
    yield b'[{"n":1},' + payload + b"]", "application/json"
    yield head + payload + b"}", STRUCTURED
    yield b"[" + head + payload + b"}]", BATCHED


@cases
def test_it_is_refused_over_http_in_every_mode(product, key, nothing_is_kept, payload):
    for body, content_type in doors(payload):
        status, _, problem = product.call("POST", PATH, body, key, {"Content-Type": content_type})
        assert (status, problem["reason"]) == (422, "invalid-payload"), content_type


@cases
def test_it_is_refused_on_the_socket_or_closes_it(product, key, nothing_is_kept, payload):
    frame = b'{"type":"publish","channel":"trades","ref":"1","data":' + payload + b"}"
    head = b"\x81\xff" + len(frame).to_bytes(8) if len(frame) > 65535 else b"\x81\xfe" + len(frame).to_bytes(2)
    short = b"\x81" + bytes([0x80 | len(frame)]) if len(frame) < 126 else head
    with websockets.sync.client.connect(product.ws_url + "/v1/stream", additional_headers={"X-API-Key": key}) as socket:
        socket.recv(10)
        # By hand: the client itself would not send what is no UTF-8.
        socket.socket.sendall(short + bytes(4) + frame)
        assert answer(socket) in ("invalid-payload", 1007, 1009)


def answer(socket):
    """Return the reason of the refusal, or the code with which the socket was closed."""
    try:
        return json.loads(socket.recv(10))["reason"]
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code


@cases
def test_it_is_refused_over_mqtt(product, key, nothing_is_kept, payload):
    answers = {}
    answered = threading.Event()

    def note(client, data, mid, code, properties):
        answers[mid] = code.value
        answered.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set("bench", key)
    client.on_publish = note
    client.connect("127.0.0.1", product.mqtt_port)
    client.loop_start()
    try:
        sent = client.publish("trades", payload, qos=1)
        assert answered.wait(20)
        assert answers[sent.mid] in (0x83, 0x99)
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("payload", list(filter(None, BAD.values())), ids=list(filter(BAD.get, BAD)))
def test_it_is_refused_where_work_is_asked_for(product, key, payload):
    for path in ("/v1/jobs/reports", "/reports", "/v1/subscriptions", "/registry/subjects/any/versions"):
        status, _, problem = product.call("POST", path, payload, key)
        assert status in (400, 413, 422), (path, problem)


@cases
def test_it_is_refused_by_the_management_api(product, payload):
    headers = {"Authorization": f"Token {product.ready['admin']['token']}"}
    for around in (b"%b", b'{"name":"odd","tier":"gold","metadata":{"x":%b}}'):
        status, _, problem = product.call("POST", "/api/v1/consumers/", around % payload, headers=headers)
        assert status == 400, problem
    assert all(consumer["name"] != "odd" for consumer in product.admin("GET", "consumers/")["results"])


def test_64_levels_of_data_are_taken_by_every_door(product, key, newest):
    before = newest()
    for number, (body, content_type) in enumerate(doors(DEEPEST, number=before)):
        # As a body alone it is an array of one event, whose own levels are one less.
        assert product.call("POST", PATH, body, key, {"Content-Type": content_type})[0] == 201, (number, content_type)
    with websockets.sync.client.connect(product.ws_url + "/v1/stream", additional_headers={"X-API-Key": key}) as socket:
        socket.recv(10)
        socket.send('{"type":"publish","channel":"trades","ref":"1","data":' + DEEPEST.decode() + "}")
        assert json.loads(socket.recv(10))["type"] == "published"


@pytest.mark.parametrize("path", [PATH, "/v1/jobs/reports", "/v1/subscriptions"])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip, gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_never_inflated(product, key, path, encoding):
    bomb = gzip.compress(bytes(50_000_000))
    status, _, problem = product.call("POST", path, bomb, key, {"Content-Encoding": encoding})
    assert (status, problem["reason"]) == (415, "invalid-request")


def test_a_compressed_body_is_never_inflated_by_the_management_api_either(product):
    bomb = gzip.compress(b'{"name":"' + b"a" * 50_000_000 + b'"}')
    headers = {"Authorization": f"Token {product.ready['admin']['token']}", "Content-Encoding": "gzip"}
    assert product.call("POST", "/api/v1/consumers/", bomb, headers=headers)[0] == 400


def test_text_that_is_no_utf_8_comes_back_byte_for_byte(product, key):
    product.admin("POST", "channels/", {"address": "latin", "content_type": "bytes"})
    sent, latin = b"caf\xe9", "/v1/channels/latin/events"
    headers = {"Content-Type": "text/plain; charset=iso-8859-1"}
    eventually(lambda: product.call("POST", latin, sent, key, headers)[0] == 201)
    path = f"{latin}?limit=1"
    (event,) = eventually(lambda: product.call("GET", path, key=key)[2]["results"])
    assert event["data_base64"] == "Y2Fm6Q=="
