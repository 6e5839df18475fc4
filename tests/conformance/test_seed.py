"""The samples of the guide that started this run against the product, host and key aside."""

import asyncio
import json
import threading

import pytest
import websockets
import websockets.sync.client

from tests.conformance.clients import HERE, mosquitto_pub, mosquitto_sub, node
from tests.product import eventually

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]


@pytest.fixture
def gold(product):
    return product.ready["keys"]["gold"]


def publish(product, key, channel, data):
    status, _, body = product.call("POST", f"/v1/channels/{channel}/events", data, key)
    assert status == 201, body
    return body["id"]


def test_the_websocket_subscriber_sees_trades(product, gold):
    with node("websocket.mjs", product, gold) as client:
        assert client.json()["type"] == "welcome"
        subscribed = client.json()
        assert (subscribed["type"], subscribed["channel"]) == ("subscribed", "trades")
        id_ = publish(product, gold, "trades", {"symbol": "ACME", "price": 104.2})
        event = client.json()
        assert (event["type"], event["channel"], event["id"]) == ("event", "trades", id_)
        assert event["data"] == {"symbol": "ACME", "price": 104.2}


def test_the_event_source_displays_notifications(product, gold):
    with node("eventsource.mjs", product, gold) as client:
        assert client.line() == "open"
        publish(product, gold, "notifications", {"text": "deployed"})
        assert client.json() == {"text": "deployed"}


def test_the_event_source_of_a_page_elsewhere_may_read_them_too(product, gold):
    origin = {"Origin": "https://app.example"}
    status, headers, _ = product.call("HEAD", "/v1/notifications", key=gold, headers=origin)
    assert (status, headers["access-control-allow-origin"]) == (200, origin["Origin"])


def test_the_poller_of_a_report_gets_a_link_that_needs_no_key(product, gold):
    product.call("GET", "/quotes/ACME", key=gold)
    with node("reports.mjs", product, gold) as client:
        url = client.line(40)
    status, headers, report = product.call("GET", url)
    assert (status, headers["content-type"]) == (200, "application/pdf")
    assert report.startswith(b"%PDF-")


def test_the_asyncapi_document_governs_the_sensors_topic(product, gold):
    product.manage("import", str(HERE / "seed" / "temperature.asyncapi.yaml"))

    def imported():
        return product.call("GET", "/v1/channels/sensors%2Ftemperature/events", key=gold)[0] == 200

    eventually(imported)
    with mosquitto_sub(product, gold, "sensors/temperature", "-d") as subscriber:
        while "Subscribed" not in subscriber.line():
            pass
        valid = {"deviceId": "d1", "value": 21.5, "unit": "C", "timestamp": "2026-01-01T00:00:00Z"}
        assert mosquitto_pub(product, gold, "sensors/temperature", json.dumps(valid), "-q", "1").returncode == 0
        while not (line := subscriber.line()).startswith("{"):
            pass
        assert json.loads(line) == valid
    _, _, history = product.call("GET", "/v1/channels/sensors%2Ftemperature/events", key=gold)
    assert [event["data"] for event in history["results"]] == [valid]
    invalid = mosquitto_pub(product, gold, "sensors/temperature", '{"value": "warm"}', "-q", "1", "-V", "mqttv5", "-d")
    assert "RC:131" in invalid.stdout + invalid.stderr
    (dead,) = eventually(lambda: product.admin("GET", "dead-letters/?channel=sensors%2Ftemperature")["results"])
    assert dead["reason"] == "invalid-payload"
    assert product.admin("GET", f"dead-letters/{dead['id']}/")["event"]["data"] == {"value": "warm"}
    _, _, history = product.call("GET", "/v1/channels/sensors%2Ftemperature/events", key=gold)
    assert len(history["results"]) == 1


class Upstream:
    """A WebSocket service of somebody else: echoes, and says which headers reached it."""

    def __enter__(self):
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def echo(connection):
            await connection.send(json.dumps(dict(connection.request.headers.raw_items())))
            async for message in connection:
                await connection.send(message)

        async def serve():
            self._stop = asyncio.Event()
            async with websockets.serve(echo, "127.0.0.1", 0) as server:
                self.port = server.sockets[0].getsockname()[1]
                started.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        self._thread.start()
        assert started.wait(5)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


def test_the_zuplo_route_proxies_with_the_named_policies(product, gold, tmp_path):
    with Upstream() as upstream:
        document = (HERE / "seed" / "market-data.zuplo.json").read_text()
        mine = tmp_path / "routes.json"
        mine.write_text(document.replace("https://backend.internal", f"http://127.0.0.1:{upstream.port}"))
        product.manage("import", str(mine))
        route = product.admin("GET", "routes/ws-market-data/")
        assert [policy["type"] for policy in route["policies"]] == ["api-key", "rate-limit"]
        url = f"{product.ws_url}/ws/market-data"

        def proxied():
            with websockets.sync.client.connect(url, additional_headers={"X-API-Key": gold}) as client:
                body = json.loads(client.recv(5))
                client.send("hello")
                return "symbol" not in body and (body, client.recv(5))

        seen, echoed = eventually(proxied)
        assert echoed == "hello"
        assert gold not in json.dumps(seen)
        with pytest.raises(websockets.InvalidStatus) as refused:
            websockets.sync.client.connect(url)
        assert refused.value.response.status_code == 401


def test_the_zuplo_document_is_taken_as_it_stands(product):
    body = product.manage("import", "--dry-run", str(HERE / "seed" / "market-data.zuplo.json"), check=False)
    assert "market-data" in body.stdout, body.stderr
