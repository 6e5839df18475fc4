"""Tokens of an issuer, from the management API to every process and protocol of the running product."""

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.tests.identity_provider import jwk, token
from gateway.tests.mqtt_client import MqttClient
from gateway.wire.mqtt.packets import V5, V311
from tests.product import Product, eventually

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(240)]
WAIT_S = 20


class Provider(ThreadingHTTPServer):
    """Publishes keys."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.keys = [jwk("k1")]
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/jwks"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        body = json.dumps({"keys": self.server.keys}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def provider():
    with Provider() as made:
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """One product with two web processes, which read key sets every second."""
    folder = tmp_path_factory.mktemp("tokens") / "var"
    product = Product(folder, "--workers", "2", JWKS_REFRESH_S="1", FAILED_KEYS_PER_MINUTE="100000")
    yield product
    assert product.stop() == 0


@pytest.fixture
def issuer(product, provider):
    provider.keys = [jwk("k1")]
    product.admin("POST", "consumers/", {"name": "tokens", "tier": "gold"})
    fields = {"name": "idp", "issuer": "https://id.example/", "jwks_url": provider.url, "audience": "api"}
    assert product.admin("POST", "issuers/", fields)["algorithms"] == ["RS256"]
    eventually(lambda: every(product, token("tokens"), 200))
    yield fields
    if product.admin("GET", "issuers/")["results"]:
        product.admin("DELETE", "issuers/idp")
    product.admin("DELETE", "consumers/tokens")


def every(product, text, status):
    """Return whether enough calls have this outcome that both processes served one."""
    return all(product.call("GET", "/v1/me", key=text)[0] == status for _ in range(8))


def stream(product, text):
    headers = {"authorization": f"Bearer {text}"}
    return connect(f"{product.ws_url}/v1/stream", additional_headers=headers, open_timeout=WAIT_S)


async def closed(socket):
    async with asyncio.timeout(WAIT_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd and (end.rcvd.code, json.loads(end.rcvd.reason)["reason"])


async def heard(socket, *types):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        if frame["type"] in types:
            return frame


@asynccontextmanager
async def mqtt(product, version, text):
    client = MqttClient(product.mqtt_port, version)
    await client.open()
    try:
        yield client, (await client.connect(text)).content[1]
    finally:
        client.writer.close()
        with suppress(OSError):
            await client.writer.wait_closed()


async def test_a_token_opens_every_door_until_it_expires(product, issuer):
    answer = product.call("GET", "/v1/me", key=token("tokens"))[2]
    assert (answer["consumer"], answer["key"], answer["tier"]) == ("tokens", "jwt:idp", "gold")
    async with stream(product, token("tokens")) as socket:
        await heard(socket, "welcome")
        # What has expired before it is looked at is refused, and the connection goes on as it was.
        while True:
            await socket.send(json.dumps({"type": "auth", "token": token("tokens", exp=time.time() + 1)}))
            if (await heard(socket, "authenticated", "error"))["type"] == "authenticated":
                break
        assert await closed(socket) == (3000, "token-expired")
    for version in (V311, V5):
        async with mqtt(product, version, token("tokens")) as (client, code):
            assert code == 0
            assert await client.is_served()
    async with mqtt(product, V5, token("tokens", exp=1)) as (_, code):
        assert code == 0x86
    ledger = eventually(
        lambda: product.admin("GET", "connections/?consumer=tokens&state=closed&error_class=expired")["results"]
    )
    assert (ledger[0]["key"], ledger[0]["close_code"], ledger[0]["closed_by"]) == ("jwt:idp", 3000, "gateway")


async def test_a_rotated_key_takes_over_and_a_withdrawn_one_ends_what_it_opened(product, provider, issuer):
    async with stream(product, token("tokens")) as old:
        await heard(old, "welcome")
        provider.keys = [jwk("k1"), jwk("k2")]
        eventually(lambda: every(product, token("tokens", kid="k2"), 200))
        assert every(product, token("tokens"), 200)
        async with stream(product, token("tokens", kid="k2")) as new:
            await heard(new, "welcome")
            provider.keys = [jwk("k2")]
            assert await closed(old) == (3000, "key-revoked")
            eventually(lambda: every(product, token("tokens"), 401))
            await new.send('{"type":"ping"}')
            await heard(new, "pong")


async def test_a_deleted_issuer_ends_what_its_tokens_opened_everywhere(product, issuer):
    text = token("tokens")
    sockets = [await stream(product, text) for _ in range(6)]
    for socket in sockets:
        await heard(socket, "welcome")
    async with mqtt(product, V5, text) as (client, code):
        assert code == 0
        product.admin("DELETE", "issuers/idp")
        assert {await closed(socket) for socket in sockets} == {(3000, "key-revoked")}
        assert (await client.ends())[:3:2] == b"\xe0\x98"
    eventually(lambda: every(product, text, 401))


async def test_a_disabled_consumer_s_tokens_end_and_work_again_with_it(product, issuer):
    text = token("tokens")
    async with stream(product, text) as socket:
        await heard(socket, "welcome")
        product.admin("PATCH", "consumers/tokens", {"is_active": False})
        assert await closed(socket) == (3000, "key-revoked")
    eventually(lambda: every(product, text, 401))
    product.admin("PATCH", "consumers/tokens", {"is_active": True})
    eventually(lambda: every(product, text, 200))


async def test_a_browser_trades_its_token_for_a_ticket_that_works_once(product, issuer):
    status, _, answer = product.call("POST", "/v1/tickets", key=token("tokens"))
    assert status == 201
    url = f"{product.ws_url}/v1/stream?ticket={answer['ticket']}"
    async with connect(url, open_timeout=WAIT_S) as socket:
        await heard(socket, "welcome")
    assert product.call("GET", f"/v1/me?ticket={answer['ticket']}")[0] == 401
    written = [product.output, *(product.data_dir / "logs").rglob("*")]
    text = "".join(path.read_text(errors="replace") for path in written if path.is_file())
    assert answer["ticket"] not in text
    assert token("tokens").split(".")[0] not in text
