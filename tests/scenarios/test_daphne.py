"""The same application under Daphne, which Django people know."""

import json
import subprocess
import sys
import threading

import pytest
import websockets
import websockets.sync.client

from tests.product import ROOT, eventually, free_port

pytestmark = pytest.mark.xdist_group("product")


@pytest.fixture(scope="module")
def daphne(product):
    """Serve the product's application by Daphne beside it; gives the port."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "daphne",
            "-b",
            "127.0.0.1",
            "-p",
            str(port),
            "apimgmt.asgi:application",
        ],
        cwd=ROOT,
        env=product.environment | {"DATA_DIR": str(product.data_dir), "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def serves():
        try:
            return product.call("GET", f"http://127.0.0.1:{port}/healthz")[0] == 200
        except OSError:
            return False

    try:
        eventually(serves, within_s=30)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def gold(product):
    return product.ready["keys"]["gold"]


def test_rest_is_proxied_and_refused_as_under_our_own_server(product, daphne, gold):
    base = f"http://127.0.0.1:{daphne}"
    status, headers, quote = product.call("GET", f"{base}/quotes/ACME", key=gold)
    assert (status, quote["symbol"]) == (200, "ACME")
    assert "ratelimit" in headers
    status, headers, problem = product.call("GET", f"{base}/quotes/ACME")
    assert (status, problem["reason"]) == (401, "unauthenticated")
    assert headers["content-type"] == "application/problem+json"


def test_events_are_published_and_read_back(product, daphne, gold):
    url = f"http://127.0.0.1:{daphne}/v1/channels/trades/events"
    status, _, said = product.call("POST", url, {"symbol": "ACME"}, gold)
    assert status == 201
    _, _, history = product.call("GET", f"{url}?after={int(said['id']) - 1}", key=gold)
    assert history["results"][0]["data"] == {"symbol": "ACME"}


def test_events_reach_an_open_event_stream(product, daphne, gold):
    command = [
        "curl",
        "-sN",
        "-m",
        "15",
        "-H",
        f"X-API-Key: {gold}",
        f"http://127.0.0.1:{daphne}/v1/events?channel=trades",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout.readline() == "retry: 2000\n"
        product.call("POST", "/v1/channels/trades/events", {"n": 1}, gold)
        lines = iter(curl.stdout.readline, "")
        assert next(line for line in lines if line.startswith("data:")) == 'data: {"n": 1}\n'
        curl.kill()


def test_one_socket_carries_many_channels(product, daphne, gold):
    url = f"ws://127.0.0.1:{daphne}/v1/stream"
    with websockets.sync.client.connect(url, additional_headers={"X-API-Key": gold}) as socket:
        assert json.loads(socket.recv(5))["type"] == "welcome"
        socket.send('{"type":"ping"}')
        assert json.loads(socket.recv(5)) == {"type": "pong"}
        socket.send('{"type":"subscribe","channel":"trades"}')
        assert json.loads(socket.recv(5))["type"] == "subscribed"
        threading.Thread(target=product.call, args=("POST", "/v1/channels/trades/events", {"n": 2}, gold)).start()
        assert json.loads(socket.recv(5))["data"] == {"n": 2}


def test_a_refused_handshake_is_answered(daphne):
    with pytest.raises(websockets.InvalidStatus) as refused:
        websockets.sync.client.connect(f"ws://127.0.0.1:{daphne}/v1/stream", open_timeout=10)
    assert refused.value.response.status_code in (401, 403)
