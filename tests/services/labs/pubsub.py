"""Google Pub/Sub in a lab: a stand-in of ours that speaks its REST API."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from tests.services.labs.lab import Lab

ACK_DEADLINE_S = 10
"""The shortest that a subscription can have."""


class PubsubLab(Lab):
    """The calls of Pub/Sub's REST interface that a client makes, as its documentation describes them.

    Google's emulator comes with its own tools alone; this keeps messages, hands them out and takes acknowledgements.
    """

    type = "google-pubsub"
    can_restart = False
    prefix = "ce-"

    def __init__(self, folder):
        super().__init__(folder)
        lab = self
        self.messages, self.acknowledged, self.numbers = [], set(), itertools.count(1)
        self.held_until = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.say({"name": self.path})

            def do_POST(self):
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                verb = self.path.rpartition(":")[2]
                self.say(
                    {
                        "publish": lab.publish,
                        "pull": lab.pull,
                        "acknowledge": lab.acknowledge,
                        "modifyAckDeadline": lab.modify_ack_deadline,
                    }[verb](body)
                )

            def say(self, message_):
                data = orjson.dumps(message_)
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args): ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def publish(self, body):
        ids = []
        for message in body["messages"]:
            id_ = str(next(self.numbers))
            self.messages.append(message | {"messageId": id_, "publishTime": "2026-03-01T12:00:00Z"})
            ids.append(id_)
        return {"messageIds": ids}

    def pull(self, body):
        now = time.monotonic()
        unacknowledged = [message for message in self.messages if message["messageId"] not in self.acknowledged]
        # All messages have one ordering key: none is handed out while an earlier one is held.
        is_held = any(self.held_until.get(message["messageId"], 0) > now for message in unacknowledged)
        left = [] if is_held else unacknowledged[: body["maxMessages"]]
        self.held_until |= {message["messageId"]: now + ACK_DEADLINE_S for message in left}
        return {"receivedMessages": [{"ackId": message["messageId"], "message": message} for message in left]}

    def modify_ack_deadline(self, body):
        self.held_until |= dict.fromkeys(body["ackIds"], time.monotonic() + body["ackDeadlineSeconds"])
        return {}

    def acknowledge(self, body):
        self.acknowledged.update(body["ackIds"])
        return {}

    def fresh(self):
        super().fresh()
        self.messages, self.acknowledged = [], set()

    def start(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def link(self):
        return {"project": "p", "endpoint": f"http://127.0.0.1:{self.server.server_port}/v1"}

    def source(self):
        return self.link | {"subscription": self.name}

    def sink(self):
        return self.link | {"topic": self.name}

    async def put(self, messages):
        body = [{"data": base64.b64encode(data).decode(), "attributes": headers} for data, headers in messages]
        self.publish({"messages": body})

    async def got(self):
        return [(base64.b64decode(message["data"]), message["attributes"]) for message in self.messages]
