"""A gateway that its engines cannot be reached from: it answers, says so, and goes on where it was."""

import asyncio
import contextlib
import json
import threading

import pytest
import websockets.sync.client

from apimgmt.engines import free_port
from gateway.concurrency.stopping import stop_tasks
from gateway.tests.nats_server import NatsServer
from gateway.tests.valkey_server import ValkeyServer
from tests.product import Product, eventually

pytestmark = pytest.mark.xdist_group("product")


class Cable:
    """What lies between a gateway and one engine; cut, it carries nothing and says nothing."""

    def __init__(self, port):
        self.to_port, self.port = port, free_port()
        self.loop = asyncio.new_event_loop()
        self.whole = asyncio.Event()
        self.whole.set()
        self.lines = set()
        self.serving = threading.Thread(target=self.loop.run_until_complete, args=[self._serve()], daemon=True)
        self.serving.start()

    def cut(self):
        self.loop.call_soon_threadsafe(self.whole.clear)

    def mend(self):
        self.loop.call_soon_threadsafe(self.whole.set)

    def end(self):
        self.loop.call_soon_threadsafe(self.ending.set)
        self.serving.join(20)
        self.loop.close()

    async def _serve(self):
        self.ending = asyncio.Event()
        async with await asyncio.start_server(self._line, "127.0.0.1", self.port):
            await self.ending.wait()
            await stop_tasks(*self.lines)

    async def _line(self, reader, writer):
        self.lines.add(asyncio.current_task())
        await self.whole.wait()
        with contextlib.suppress(OSError):
            engine = await asyncio.open_connection("127.0.0.1", self.to_port)
            await asyncio.gather(self._carry(reader, engine[1]), self._carry(engine[0], writer))

    async def _carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def cables(tmp_path_factory):
    nats, valkey = NatsServer(tmp_path_factory.mktemp("nats")), ValkeyServer(tmp_path_factory.mktemp("valkey"))
    nats.start()
    valkey.start()
    found = {"NATS_URL": Cable(nats.port), "REDIS_URL": Cable(valkey.port)}
    yield found
    for cable in found.values():
        cable.end()
    nats.kill()
    valkey.stop()


@pytest.fixture(scope="module")
def product(tmp_path_factory, cables):
    urls = {
        "NATS_URL": f"nats://127.0.0.1:{cables['NATS_URL'].port}",
        "REDIS_URL": f"redis://127.0.0.1:{cables['REDIS_URL'].port}/0",
    }
    running = Product(tmp_path_factory.mktemp("partition") / "var", DRAIN_S="1", **urls)
    yield running
    running.stop()


def test_cut_off_from_its_engines_it_answers_and_then_goes_on_where_it_was(product, cables):
    key = product.ready["keys"]["gold"]

    def publish(number):
        return product.call("POST", "/v1/channels/trades/events", {"price": number}, key)[0]

    headers = {"X-API-Key": key}
    with websockets.sync.client.connect(f"{product.ws_url}/v1/stream", additional_headers=headers) as socket:
        socket.send(json.dumps({"type": "subscribe", "channel": "trades"}))
        while json.loads(socket.recv(20))["type"] != "subscribed":
            pass
        assert publish(1) == 201
        for cable in cables.values():
            cable.cut()
        # Each would wait for ever: `call` gives up after 20 s.
        assert publish(2) == 503
        assert product.call("GET", "/v1/channels/trades/events", key=key)[0] == 503
        assert product.call("POST", "/v1/tickets", key=key)[0] == 503
        assert product.call("GET", "/v1/me", key=key)[0] == 200
        assert product.call("GET", "/quotes/ACME", key=key)[0] == 200
        assert product.call("GET", "/readyz")[0] == 503
        for cable in cables.values():
            cable.mend()
        eventually(lambda: publish(3) == 201)
        eventually(lambda: product.call("POST", "/v1/tickets", key=key)[0] == 201)
        seen = []
        while 3 not in seen:
            body = json.loads(socket.recv(20))
            if body["type"] == "event":
                seen.append(body["data"]["price"])
        # The second was on its way when the cable was cut, and may have been kept; the first and the third were.
        assert seen == sorted({1, *seen, 3})
