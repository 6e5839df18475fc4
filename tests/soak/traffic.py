"""Traffic beside the events: calls, an echo through a tunnel, jobs, connections that come and go, configuration."""

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter

import paho.mqtt.client as paho
import websockets
import websockets.sync.client
from paho.mqtt.enums import CallbackAPIVersion

PAUSE_S = 0.02
AWAY = (OSError, http.client.HTTPException, websockets.WebSocketException, TimeoutError)
WHILE_KILLED = {429, 502, 503, 504}
"""What a call may be answered while processes are killed; a client tries again."""


class Traffic(threading.Thread):
    """Repeats one step until the soak is over; what is not allowed is kept as a fault."""

    def __init__(self, soak):
        super().__init__(daemon=True)
        self.soak = soak
        self.done = 0
        self.faults = Counter()
        self.lost = 0
        """Connections that broke while processes were killed."""
        self.numbers = itertools.count()

    def run(self):
        while not self.soak.over.is_set():
            is_calm = self.soak.is_calm
            try:
                self.step()
                self.done += 1
            except AWAY as fault:
                self.close()
                if is_calm:
                    self.faults[f"{type(fault).__name__}: {fault}"[:200]] += 1
                else:
                    self.lost += 1
            except AssertionError as fault:
                if is_calm or not self._is_of_a_kill(fault):
                    self.faults[str(fault)[:200]] += 1
            self.soak.over.wait(PAUSE_S)
        self.close()

    def step(self):
        raise NotImplementedError

    def close(self):
        """Drop what is connected."""

    @property
    def headers(self):
        return {"X-API-Key": self.soak.product.ready["keys"]["bench"]}

    def expect(self, status, expected, what):
        if status != expected:
            raise Unexpected(status, what)

    @staticmethod
    def _is_of_a_kill(fault):
        return isinstance(fault, Unexpected) and fault.status in WHILE_KILLED


class Unexpected(AssertionError):
    """A status that was not expected."""

    def __init__(self, status, what):
        super().__init__(f"{status}: {what}")
        self.status = status


class Calls(Traffic):
    """GET and POST in turn on one connection."""

    def __init__(self, soak):
        super().__init__(soak)
        self.latencies_s = []
        self.caller = None

    def step(self):
        product = self.soak.product
        self.caller = self.caller or http.client.HTTPConnection("127.0.0.1", product.port, timeout=20)
        method, body = ("POST", b"x" * 1000) if next(self.numbers) % 2 else ("GET", None)
        began = time.perf_counter()
        self.caller.request(method, "/echo", body, self.headers)
        answer = self.caller.getresponse()
        read = answer.read()
        if self.soak.is_calm:
            self.latencies_s.append(time.perf_counter() - began)
        self.expect(answer.status, 200, read[:100])
        assert len(json.loads(read)["body"]) == len(body or b""), "half an answer"

    def close(self):
        if self.caller:
            self.caller.close()
        self.caller = None


class Echo(Traffic):
    """Messages through a proxied WebSocket, one in flight."""

    path = "/soak/echo"

    def __init__(self, soak):
        super().__init__(soak)
        self._held = contextlib.ExitStack()
        self.socket = None

    def step(self):
        if self.socket is None:
            url = self.soak.product.ws_url + self.path
            opened = websockets.sync.client.connect(
                url, additional_headers=self.headers, open_timeout=10, close_timeout=1, compression=None
            )
            self.socket = self._held.enter_context(opened)
        text = f"message {next(self.numbers)}"
        self.socket.send(text)
        assert self.socket.recv(20) == text, "another message came back"

    def close(self):
        self.socket = None
        with contextlib.suppress(*AWAY):
            self._held.close()


class Churn(Echo):
    """Connections of each protocol that come, subscribe and go."""

    path = "/v1/stream"

    def step(self):
        (self._stream, self._events, self._mqtt)[next(self.numbers) % 3]()

    def _stream(self):
        url = self.soak.product.ws_url + self.path
        with websockets.sync.client.connect(
            url, additional_headers=self.headers, open_timeout=10, close_timeout=1
        ) as socket:
            socket.send(json.dumps({"type": "subscribe", "channel": self.soak.channel}))
            answers = [json.loads(socket.recv(20))["type"] for _ in range(2)]
            assert answers[0] == "welcome", answers
            assert answers[1] in ("subscribed", "event") or not self.soak.is_calm, answers

    def _events(self):
        caller = http.client.HTTPConnection("127.0.0.1", self.soak.product.port, timeout=20)
        try:
            caller.request("GET", f"/v1/events?channel={self.soak.channel}", headers=self.headers)
            answer = caller.getresponse()
            self.expect(answer.status, 200, "event stream")
            answer.readline()
        finally:
            caller.close()

    def _mqtt(self):
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set("bench", self.soak.product.ready["keys"]["bench"])
        subscribed = threading.Event()
        client.on_connect = lambda *_: client.subscribe(self.soak.channel, 1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", self.soak.product.mqtt_port)
        client.loop_start()
        try:
            if not subscribed.wait(20):
                raise TimeoutError("no SUBACK")
        finally:
            client.disconnect()
            client.loop_stop()


class Jobs(Traffic):
    """Jobs that are submitted and asked for until they have ended."""

    def step(self):
        product, key = self.soak.product, self.soak.product.ready["keys"]["bench"]
        status, _, job = product.call("POST", "/reports", {"type": "daily", "format": "csv"}, key)
        self.expect(status, 202, job)
        while not self.soak.over.wait(0.2):
            status, _, job = product.call("GET", f"/v1/jobs/{job['id']}", key=key)
            self.expect(status, 200, job)
            if job["state"] not in ("queued", "running"):
                assert job["state"] == "completed", job
                break
        self.soak.over.wait(1)


class Changes(Traffic):
    """A route, a channel and a key that are made, used and taken away."""

    def step(self):
        product, number = self.soak.product, next(self.numbers)
        name = f"soak-{number}"
        handler = {"type": "upstream", "url": f"http://127.0.0.1:{self.soak.upstream_port}/"}
        route = {"name": name, "path": f"/soak/{number}", "methods": ["GET"], "protocol": "http", "handler": handler}
        product.admin("POST", "routes/", route | {"policies": [{"type": "api-key"}]})
        product.admin("POST", "channels/", {"address": name})
        key = product.admin("POST", "consumers/bench/keys", {"name": name, "scopes": ["*"]})
        self._until(f"/soak/{number}", key["key"], (200,))
        product.admin("POST", f"keys/{key['id']}/revoke", {"reason": "soak"})
        self._until(f"/soak/{number}", key["key"], (401, 429))  # 20 failed keys a minute are looked at
        product.admin("DELETE", f"routes/{name}")
        product.admin("DELETE", f"channels/{name}")
        self.soak.over.wait(4)

    def _until(self, path, key, statuses):
        """Ask until a change has arrived in both web processes, as far as two answers in a row tell."""
        ends_at, right = time.monotonic() + 20, 0
        while right < 2:
            seen = self.soak.product.call("GET", path, key=key)[0]
            right = right + 1 if seen in statuses else 0
            assert time.monotonic() < ends_at, f"{seen} instead of {statuses} 20 s after a change"
