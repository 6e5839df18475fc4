"""Subscriptions as their users meet them: made by REST, delivered, failed, killed in between, put back."""

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from tests.product import Product, eventually

pytestmark = pytest.mark.xdist_group("product")


class Endpoint:
    """An endpoint of webhooks in threads of the test's own."""

    def __init__(self):
        self.messages, self.answer = [], lambda data: 204
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.messages.append((dict(self.headers.items()), body))
                status = endpoint.answer(json.loads(body)["data"])
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    @property
    def values(self):
        return [json.loads(body)["data"] for _, body in self.messages]


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    running = Product(
        tmp_path_factory.mktemp("subscriptions") / "var", "--no-demo",
        OUTBOUND_ALLOWED_NETWORKS="127.0.0.0/8", WEBHOOK_TIMEOUT_S="2",
    )  # fmt: skip
    yield running
    running.stop()


@pytest.fixture(scope="module")
def key(product):
    product.admin("POST", "tiers/", {"name": "roomy", "limits": []})
    product.admin("POST", "consumers/", {"name": "tester", "tier": "roomy"})
    product.admin("POST", "channels/", {"address": "trades"})
    made = product.admin("POST", "consumers/tester/keys", {"scopes": ["publish:*", "subscribe:*"]})
    eventually(lambda: product.call("GET", "/v1/me", key=made["key"])[0] == 200)
    eventually(lambda: product.call("POST", "/v1/channels/trades/events", 0, made["key"])[0] == 201)
    return made["key"]


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def subscribe(product, key, **fields):
    status, headers, reply = product.call("POST", "/v1/subscriptions", {"channel": "trades", **fields}, key)
    assert status == 201, reply
    assert headers["location"].endswith(reply["id"])
    return reply


def publish(product, key, *values):
    for value in values:
        status, _, reply = product.call("POST", "/v1/channels/trades/events", value, key)
        assert status == 201, reply


def test_delivered_failed_dead_and_put_back(product, key, endpoint):
    endpoint.answer = lambda data: 500 if data == "poison" else 200
    made = subscribe(product, key, type="webhook", url=endpoint.url, retry_schedule_s=[0, 0.1], max_attempts=2)
    publish(product, key, {"n": 1}, "poison", {"n": 2})
    eventually(lambda: {"n": 2} in endpoint.values)
    headers, body = endpoint.messages[0]
    assert Webhook(made["secret"]).verify(body, headers)["data"] == {"n": 1}
    assert endpoint.values == [{"n": 1}, "poison", "poison", {"n": 2}]
    (letter,) = eventually(lambda: product.admin("GET", f"dead-letters/?subscription={made['id']}")["results"])
    assert (letter["reason"], letter["attempts"]) == ("undelivered", 2)
    assert product.admin("GET", f"dead-letters/{letter['id']}/")["event"]["data"] == "poison"
    _, _, attempts = product.call("GET", f"/v1/subscriptions/{made['id']}/attempts", key=key)
    assert [one["outcome"] for one in reversed(attempts["results"])] == ["delivered", "failed", "dead", "delivered"]
    endpoint.answer = lambda data: 200
    product.admin("POST", f"dead-letters/{letter['id']}/redrive")
    eventually(lambda: endpoint.values.count("poison") == 3)
    assert product.admin("GET", f"dead-letters/?subscription={made['id']}")["results"] == []
    product.call("DELETE", f"/v1/subscriptions/{made['id']}", key=key)


def test_nothing_is_lost_where_the_deliverer_is_killed(product, key, endpoint):
    endpoint.answer = lambda data: time.sleep(0.05) or 200
    made = subscribe(product, key, type="webhook", url=endpoint.url)
    publish(product, key, *range(40))
    for seen in (5, 15):
        eventually(lambda seen=seen: len(endpoint.values) >= seen, 40)
        os.kill(product.reread()["processes"]["delivery"][0], signal.SIGKILL)
    eventually(lambda: {*range(40)} <= {*endpoint.values}, 60)
    firsts = list(dict.fromkeys(endpoint.values))
    assert firsts == [*range(40)]
    product.call("DELETE", f"/v1/subscriptions/{made['id']}", key=key)


def test_pulled_through_the_death_of_every_web_process(product, key):
    made = subscribe(product, key, type="pull", ack_wait_s=1)
    path = f"/v1/subscriptions/{made['id']}"
    publish(product, key, *range(10))
    _, _, reply = product.call("GET", f"{path}/events?limit=4", key=key)
    product.call("POST", f"{path}/ack", {"ids": [event["id"] for event in reply["results"][:2]]}, key)
    for pid in product.reread()["processes"]["web"]:
        os.kill(pid, signal.SIGKILL)
    found = []

    def pull():
        try:
            status, _, reply = product.call("GET", f"{path}/events?limit=4&wait_s=1", key=key)
        except OSError:
            return False
        if status == 200 and reply["results"]:
            found.extend(event["data"] for event in reply["results"])
            product.call("POST", f"{path}/ack", {"ids": [event["id"] for event in reply["results"]]}, key)
        return {*found} >= {*range(2, 10)}

    eventually(pull, 40)
    assert sorted({*found}) == [*range(2, 10)]


def test_operators_see_what_consumers_have(product, key):
    made = subscribe(product, key, type="pull")
    publish(product, key, 1, 2)
    reply = eventually(lambda: counted(product, made, 2))
    assert reply["consumer"] == "tester"
    assert product.admin("PATCH", f"subscriptions/{made['id']}", {"state": "paused"})["state"] == "paused"
    eventually(lambda: product.call("GET", f"/v1/subscriptions/{made['id']}/events", key=key)[0] == 403)
    product.admin("DELETE", f"subscriptions/{made['id']}")
    eventually(lambda: product.call("GET", f"/v1/subscriptions/{made['id']}", key=key)[0] == 404)


def counted(product, made, events):
    reply = product.admin("GET", f"subscriptions/{made['id']}")
    return (reply["lag"] or {}).get("events") == events and reply
