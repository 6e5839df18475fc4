"""Bad input at every door: the refusal of its row, counted, and nobody else hurt."""

import json
import socket
import time

import pytest
import websockets
import websockets.sync.client

from gateway.credentials.api_keys import new_key
from gateway.refusals import TABLE, Reason
from tests.product import eventually

pytestmark = pytest.mark.xdist_group("product")


@pytest.fixture(scope="module")
def keys(product):
    """Keys of a consumer of this module's own: valid, revoked, and one without the right to publish."""
    product.admin("POST", "tiers/", {"name": "roomy", "limits": []})
    product.admin("POST", "consumers/", {"name": "tester", "tier": "roomy"})

    def issue(*scopes):
        return product.admin("POST", "consumers/tester/keys", {"name": "test", "scopes": list(scopes)})

    valid = issue("call:*", "publish:*", "subscribe:*", "jobs:*")
    revoked = issue("call:*")
    product.admin("POST", f"keys/{revoked['id']}/revoke", {"reason": "test"})
    narrow = issue("subscribe:*")
    reply = {"valid": valid["key"], "revoked": revoked["key"], "narrow": narrow["key"]}
    time.sleep(1)  # asked for too early and too often, a key counts as guessed
    for name in ("valid", "narrow"):
        eventually(lambda name=name: product.call("GET", "/v1/me", key=reply[name])[0] == 200)
    eventually(lambda: product.call("GET", "/v1/me", key=reply["revoked"])[0] == 401)
    return reply | {"malformed": "apim_nonsense", "unknown": new_key(b"another pepper").text, "none": None}


@pytest.fixture
def bystander(product, keys):
    """Somebody else's socket, which must not notice."""
    with stream(product, keys["valid"]) as socket_:
        assert json.loads(socket_.recv(5))["type"] == "welcome"
        yield socket_
        socket_.send('{"type":"ping"}')
        assert json.loads(socket_.recv(5)) == {"type": "pong"}


def stream(product, key, path="/v1/stream"):
    headers = {} if key is None else {"X-API-Key": key}
    return websockets.sync.client.connect(product.ws_url + path, additional_headers=headers)


def counted(product, **labels):
    query = "&".join(f"{name}={value}" for name, value in labels.items())
    return sum(row["calls"] for row in product.admin("GET", f"usage/?{query}")["results"])


HTTP_CASES = [
    ("malformed", "GET", "/quotes/ACME", None, Reason.UNAUTHENTICATED),
    ("unknown", "GET", "/quotes/ACME", None, Reason.UNAUTHENTICATED),
    ("revoked", "GET", "/quotes/ACME", None, Reason.UNAUTHENTICATED),
    ("none", "GET", "/quotes/ACME", None, Reason.UNAUTHENTICATED),
    ("narrow", "GET", "/quotes/ACME", None, Reason.FORBIDDEN),
    ("narrow", "POST", "/v1/channels/trades/events", {"n": 1}, Reason.FORBIDDEN),
    ("valid", "GET", "/nowhere", None, Reason.NOT_FOUND),
    ("valid", "DELETE", "/quotes/ACME", None, Reason.METHOD_NOT_ALLOWED),
    ("valid", "GET", "/v1/stream", None, Reason.UPGRADE_REQUIRED),
    ("valid", "POST", "/v1/channels/nowhere/events", {"n": 1}, Reason.NOT_FOUND),
    ("valid", "GET", "/v1/events?channel=nowhere", None, Reason.NOT_FOUND),
    ("valid", "POST", "/v1/channels/trades/events", b"not json", Reason.INVALID_PAYLOAD),
    ("valid", "POST", "/v1/channels/trades/events", b'"\xff"', Reason.INVALID_PAYLOAD),
    ("valid", "POST", "/v1/channels/trades/events", b"[" * 100_000, Reason.INVALID_PAYLOAD),
    ("valid", "POST", "/v1/channels/sensors%2Fd1%2Ftemperature/events", {"value": "warm"}, Reason.INVALID_PAYLOAD),
    ("valid", "GET", "/quotes/..%2f..%2fetc", None, Reason.INVALID_REQUEST),
    ("valid", "POST", "/echo", b"x" * (1024 * 1024 + 1), Reason.TOO_LARGE),
    ("valid", "POST", "/v1/jobs/nothing", {}, Reason.NOT_FOUND),
    ("valid", "GET", "/v1/jobs/job_0000", None, Reason.NOT_FOUND),
    ("valid", "GET", "/v1/jobs/x/result?expires=1&signature=0", None, Reason.FORBIDDEN),
]


@pytest.mark.parametrize(
    ("key", "method", "path", "body", "reason"), HTTP_CASES, ids=lambda value: str(value)[:40].replace("/", "·")
)
def test_over_http_it_is_problem_details(product, keys, bystander, key, method, path, body, reason):
    status, headers, problem = product.call(method, path, body, keys[key])
    assert status == TABLE[reason].http
    assert headers["content-type"] == "application/problem+json"
    assert (problem["reason"], problem["status"]) == (reason.value, status)
    assert problem["type"] == f"/docs/refusals#{reason.value}"
    if status == 401:
        assert "www-authenticate" in headers


def test_an_upstream_that_is_away_is_a_502(product, keys, bystander):
    product.admin("POST", "routes/", {
        "name": "away", "path": "/away", "methods": ["GET"], "protocol": "http",
        "handler": {"type": "upstream", "url": "http://127.0.0.1:9/"}, "policies": [],
    })  # fmt: skip
    status, _, problem = eventually(
        lambda: (reply := product.call("GET", "/away", key=keys["valid"]))[0] != 404 and reply
    )
    assert (status, problem["reason"]) == (502, "upstream-unavailable")


def test_refusals_are_counted_with_their_error_class(product, keys):
    causes = {
        "none": "credential-missing",
        "malformed": "key-malformed",
        "revoked": "key-revoked",
        "narrow": "forbidden",
    }
    for key in causes:
        product.call("GET", "/quotes/ACME", key=keys[key])
    for cause in causes.values():
        assert eventually(lambda cause=cause: counted(product, outcome=cause, error_class="handshake_auth"))


@pytest.mark.parametrize(("key", "status"), [("malformed", 401), ("revoked", 401), ("none", 401)])
def test_a_websocket_is_refused_before_it_is_one(product, keys, bystander, key, status):
    with pytest.raises(websockets.InvalidStatus) as refused:
        stream(product, keys[key])
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["reason"] == "unauthenticated"


@pytest.mark.parametrize(
    ("key", "frame", "reason"),
    [
        ("valid", "not json", "invalid-payload"),
        ("valid", "[1]", "invalid-request"),
        ("valid", '{"type":"dance"}', "invalid-request"),
        ("valid", '{"type":"subscribe","channel":"nowhere"}', "not-found"),
        ("valid", '{"type":"publish","channel":"nowhere","data":1,"ref":"1"}', "not-found"),
        ("narrow", '{"type":"publish","channel":"trades","data":1,"ref":"1"}', "forbidden"),
        ("valid", b"\x00\x01", "invalid-request"),
    ],
)
def test_a_bad_frame_is_answered_in_band_and_the_socket_stays(product, keys, bystander, key, frame, reason):
    with stream(product, keys[key]) as socket_:
        socket_.recv(5)
        socket_.send(frame)
        error = json.loads(socket_.recv(5))
        assert (error["type"], error["reason"]) == ("error", reason)
        socket_.send('{"type":"ping"}')
        assert json.loads(socket_.recv(5)) == {"type": "pong"}


def test_a_frame_over_the_limit_closes_with_1009(product, keys, bystander):
    with stream(product, keys["valid"]) as socket_:
        socket_.recv(5)
        socket_.send("x" * (65 * 1024))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            socket_.recv(5)
        assert closed.value.rcvd.code == 1009


def test_text_that_is_not_utf_8_closes_with_1007(product, keys, bystander):
    with stream(product, keys["valid"]) as socket_:
        socket_.recv(5)
        # A masked text frame of two bytes that are no UTF-8; the client itself would refuse to send it.
        socket_.socket.sendall(bytes([0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28]))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            socket_.recv(5)
        assert closed.value.rcvd.code == 1007


@pytest.mark.parametrize(
    "offer", ["permessage-deflate", "permessage-deflate; server_max_window_bits=8, x-webkit-deflate-frame"]
)
def test_compression_is_agreed_on_only_where_a_setting_or_a_route_asks_for_it(product, keys, offer):
    headers = {"X-API-Key": keys["valid"], "Sec-WebSocket-Extensions": offer}
    with websockets.sync.client.connect(
        product.ws_url + "/v1/stream", additional_headers=headers, compression=None
    ) as socket_:
        assert "sec-websocket-extensions" not in socket_.response.headers


RAW_CASES = [
    (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400),
    (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc", 400),
    (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-a: b\r\n" * 101 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nhost: x\r\nx-a: " + b"b" * 33_000 + b"\r\n\r\n", 431),
]


@pytest.mark.parametrize(("request_", "status"), RAW_CASES, ids=range(len(RAW_CASES)))
def test_malformed_http_is_refused_and_the_connection_closed(product, bystander, request_, status):
    with socket.create_connection(("127.0.0.1", product.port), timeout=10) as raw:
        raw.sendall(request_)
        answer = b""
        while part := raw.recv(65536):
            answer += part
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]


MQTT_CONNECT = b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x10" + bytes([len(MQTT_CONNECT)]) + MQTT_CONNECT, b"\x20\x02\x00\x05"),
        (b"\x30\x03\x00\x01a", b""),
        (b"\x10\xff\xff\xff\xff\x01", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),
    ],
    ids=["no credentials", "publish before connect", "lying length", "http", "unknown version"],
)
def test_malformed_mqtt_is_refused_and_the_connection_closed(product, bystander, sent, answer):
    with socket.create_connection(("127.0.0.1", product.mqtt_port), timeout=10) as raw:
        raw.sendall(sent)
        reply = b""
        while part := raw.recv(1024):
            reply += part
    assert reply == answer
