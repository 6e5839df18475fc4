"""CloudEvents through every mode of HTTP and over the WebSocket, written and read by the official SDK."""

import json
import uuid
from datetime import UTC, datetime

import pytest
import websockets.sync.client
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.product import eventually

pytestmark = pytest.mark.xdist_group("product")
FORMAT = JSONFormat()
BATCH = "application/cloudevents-batch+json"
OURS = {"channel", "sequence"}
"""Extensions that the gateway adds."""


@pytest.fixture(scope="module")
def gold(product):
    """Return a key, once there is a channel of events of every type."""
    product.admin("POST", "channels/", {"address": "anything", "content_type": "bytes"})
    key = product.ready["keys"]["gold"]
    eventually(lambda: product.call("GET", "/v1/channels/anything/events", key=key)[0] == 200)
    return key


def event(data, content_type="application/json", **more):
    attributes = {
        "id": uuid.uuid4().hex,
        "source": "/tills/7",
        "type": "com.example.sold",
        "specversion": "1.0",
        "time": datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC),
        "datacontenttype": content_type,
        **more,
    }
    return CloudEvent(attributes, data)


def post(product, key, message):
    return post_body(product, key, message.body, message.headers)


def post_body(product, key, body, headers):
    return product.call("POST", "/v1/channels/anything/events", body, key, headers)


def known_again(read, sent):
    """Return whether the SDK reads back what it wrote, apart from the gateway's additions."""
    attributes = {name: value for name, value in read.get_attributes().items() if name not in OURS}
    return attributes == sent.get_attributes() and read.get_data() == sent.get_data()


def batch_after(product, key, id_):
    status, headers, answer = product.call(
        "GET", f"/v1/channels/anything/events?after={int(id_) - 1}", key=key, headers={"Accept": BATCH}
    )
    assert (status, headers["content-type"]) == (200, BATCH)
    return [FORMAT.read(None, json.dumps(one)) for one in answer]


EVENTS = {
    "json": event({"symbol": "ACME", "price": 104.2, "of": ["a", None, True]}),
    "extensions": event({"n": 1}, subject="tills/7/ACME", partitionkey="ACME", comexampleothervalue="5"),
    "not ascii": event({"name": "Größe €"}, subject="Zürich 100 % €"),
    "text": event("plain words,\n two lines", "text/plain"),
    "bytes": event(b"\x00\xff\x10", "application/octet-stream"),
}


@pytest.mark.parametrize("mode", [to_binary, to_structured])
@pytest.mark.parametrize("sent", EVENTS.values(), ids=EVENTS)
def test_an_event_is_read_as_it_was_sent(product, gold, mode, sent):
    sent = event(sent.get_data(), **{**sent.get_attributes(), "id": uuid.uuid4().hex})
    status, _, answer = post(product, gold, mode(sent, FORMAT))
    assert status == 201, answer
    assert known_again(batch_after(product, gold, answer["id"])[0], sent)


def test_a_batch_is_read_as_it_was_sent(product, gold):
    sent = [event({"n": number}) for number in range(3)]
    body = b"[" + b",".join(FORMAT.write(one) for one in sent) + b"]"
    status, _, answer = post_body(product, gold, body, {"Content-Type": BATCH})
    assert status == 201, answer
    read = batch_after(product, gold, answer["ids"][0])
    assert all(known_again(*pair) for pair in zip(read, sent, strict=True))


def test_a_socket_takes_and_gives_what_the_sdk_writes_and_reads(product, gold):
    sent = event({"symbol": "ACME"}, channel="trades")
    with websockets.sync.client.connect(
        f"{product.ws_url}/v1/stream", subprotocols=["cloudevents.json"], additional_headers={"X-API-Key": gold}
    ) as socket:
        socket.send(json.dumps({"type": "subscribe", "channel": "trades"}))
        while json.loads(socket.recv(10))["type"] != "subscribed":
            pass
        socket.send(FORMAT.write(sent).decode())
        frames = [json.loads(socket.recv(10)) for _ in range(2)]
    read = FORMAT.read(None, json.dumps(next(frame for frame in frames if "specversion" in frame)))
    assert read.get_extension("channel") == "trades"
    assert known_again(read, event({"symbol": "ACME"}, id=sent.get_id()))


def test_an_event_sent_twice_is_stored_once(product, gold):
    sent = to_structured(event({"n": 1}), FORMAT)
    first, second = post(product, gold, sent), post(product, gold, sent)
    assert first[0] == second[0] == 201
    assert first[2] == second[2]
