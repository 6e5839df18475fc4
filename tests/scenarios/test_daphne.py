"""The same application on Daphne, as `daphne` and Django's `runserver` run it for development."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import websockets
import websockets.sync.client

from apimgmt.engines import free_port
from tests.product import ROOT, eventually

pytestmark = pytest.mark.xdist_group("product")


def command(server, port):
    if server == "daphne":
        return [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "apimgmt.asgi:application"]
    return [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}"]


@pytest.fixture(scope="module", params=["daphne", "runserver"])
def daphne(product, request):
    """Serve the application on Daphne beside the product, with its engines; returns the port."""
    port = free_port()
    process = subprocess.Popen(
        command(request.param, port),
        cwd=ROOT,
        env=product.environment | {"DATA_DIR": str(product.data_dir), "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def serves():
        try:
            return product.call("GET", f"http://127.0.0.1:{port}/healthz")[0] == 200
        except OSError:
            return False

    try:
        eventually(serves, within_s=120)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # `runserver` has a child, which reloads
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
    status, _, body = product.call("POST", url, {"symbol": "ACME"}, gold)
    assert status == 201
    _, _, history = product.call("GET", f"{url}?after={int(body['id']) - 1}", key=gold)
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


def test_pages_are_served_beside_the_data_plane(product, daphne):
    for path in ("/docs/", "/docs/refusals"):
        status, headers, _ = product.call("GET", f"http://127.0.0.1:{daphne}{path}")
        assert status == 200, path
        assert "content-security-policy" in headers, path


def test_operators_pages_are_beside_them_on_the_development_server_alone(product, daphne, request):
    is_development = "runserver" in request.node.name
    for path in ("/", "/admin/login/", "/api/v1/schema"):
        status, _, _ = product.call("GET", f"http://127.0.0.1:{daphne}{path}")
        assert status == (200 if is_development else 404), path


def test_one_socket_publishes_and_subscribes(product, daphne, gold):
    url = f"ws://127.0.0.1:{daphne}/v1/stream"
    with websockets.sync.client.connect(url, additional_headers={"X-API-Key": gold}) as socket:
        assert json.loads(socket.recv(5))["type"] == "welcome"
        socket.send('{"type":"ping"}')
        assert json.loads(socket.recv(5)) == {"type": "pong"}
        socket.send('{"type":"subscribe","channel":"trades"}')
        assert json.loads(socket.recv(5))["type"] == "subscribed"
        threading.Thread(target=product.call, args=("POST", "/v1/channels/trades/events", {"n": 2}, gold)).start()
        assert json.loads(socket.recv(5))["data"] == {"n": 2}
        socket.send('{"type":"publish","channel":"trades","data":{"n":3}}')
        frames = {frame["type"]: frame for frame in (json.loads(socket.recv(5)) for _ in range(2))}
        assert frames["event"]["data"] == {"n": 3}
        assert frames["published"]["id"] == frames["event"]["id"]


def test_a_key_is_taken_as_a_subprotocol(daphne, gold):
    url = f"ws://127.0.0.1:{daphne}/v1/stream"
    with websockets.sync.client.connect(url, subprotocols=["bearer", gold]) as socket:
        assert socket.subprotocol == "bearer"
        assert json.loads(socket.recv(5))["type"] == "welcome"


def test_a_refused_handshake_is_answered(daphne):
    with pytest.raises(websockets.InvalidStatus) as refused:
        websockets.sync.client.connect(f"ws://127.0.0.1:{daphne}/v1/stream", open_timeout=10)
    assert refused.value.response.status_code in (401, 403)
