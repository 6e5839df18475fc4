"""Live connections of callers with a token, over every protocol: their end, their limits, where a token may be sent."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.handlers.tests.tokens.token_clients import (
    by_socket,
    closed,
    heard,
    http,
    is_served,
    outcomes,
)
from gateway.tests.event_plane import WAIT_S
from gateway.tests.http_plane import eventually
from gateway.tests.identity_provider import private_key, token
from gateway.tests.mqtt_client import client
from gateway.wire.mqtt.packets import V5, V311


@dataclass
class Transport:
    """One way to connect: opens a connection with a token, and returns the reason with which it was closed."""

    opened: object
    reason_of_close: object


@asynccontextmanager
async def by_proxied_socket(plane, text):
    async with by_socket(plane, text, "/proxied") as socket:
        yield socket


@asynccontextmanager
async def by_events(plane, text, path="/v1/events?channel=trades", begins=b"retry: 2000"):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {text}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    assert b" 200 " in head, head
    await asyncio.wait_for(reader.readuntil(begins), WAIT_S)
    try:
        yield reader
    finally:
        writer.close()


@asynccontextmanager
async def by_proxied_events(plane, text):
    async with by_events(plane, text, "/feed", b"data: first") as reader:
        yield reader


def by_mqtt(version):
    @asynccontextmanager
    async def opened(plane, text):
        async with client(plane, version) as mqtt:
            answer = await mqtt.connect(text)
            assert answer.content[1] == 0, answer
            yield mqtt

    return opened


async def ended(reader):
    """Read an event stream to its end, which is a whole answer's."""
    text = (await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), WAIT_S)).decode()
    last = text[text.rindex("event: error\ndata: ") :].split("data: ")[1].split("\n")[0]
    return json.loads(last)["reason"]


async def disconnected(mqtt):
    return (await mqtt.ends())[:3:2].hex()


TRANSPORTS = {
    "websocket": (by_socket, closed, {"token-expired": (3000, "token-expired"), "key-revoked": (3000, "key-revoked")}),
    "proxied websocket": (
        by_proxied_socket, closed, {"token-expired": (3000, "token-expired"), "key-revoked": (3000, "key-revoked")},
    ),
    "sse": (by_events, ended, {"token-expired": "token-expired", "key-revoked": "key-revoked"}),
    "proxied sse": (by_proxied_events, ended, {"token-expired": "token-expired", "key-revoked": "key-revoked"}),
    "mqtt 5": (by_mqtt(V5), disconnected, {"token-expired": "e0a0", "key-revoked": "e098"}),
    "mqtt 3.1.1": (by_mqtt(V311), disconnected, {"token-expired": "", "key-revoked": ""}),
}  # fmt: skip


@pytest.fixture(params=TRANSPORTS.values(), ids=list(TRANSPORTS))
def transport(request):
    return Transport(*request.param[:2]), request.param[2]


async def test_a_token_s_expiry_closes_its_connection_and_no_other(plane, transport, an_hour_later):
    transport, codes = transport
    sooner, later = token("acme", exp=time.time() + 1800), token("bolt", exp=time.time() + 7200)
    async with transport.opened(plane, sooner) as mine, by_socket(plane, later) as other:
        an_hour_later()
        assert await transport.reason_of_close(mine) == codes["token-expired"]
        await is_served(other)
    await eventually(lambda: ("token-expired", "expired") in outcomes(plane))


@pytest.mark.parametrize(
    "change",
    [
        lambda plane, provider: plane.snapshot.apply([("issuer", "idp", None)]),
        lambda plane, provider: plane.snapshot.apply([("issuer", "idp", provider.document(audience="other"))]),
        lambda plane, provider: plane.snapshot.apply([("consumer", "acme", None)]),
        lambda plane, provider: plane.snapshot.apply(
            [("consumer", "acme", {"name": "acme", "tier": "free", "is_active": False})]
        ),
        lambda plane, provider: plane.key_sets._replace(plane.key_sets._sets["idp"], []),
    ],
    ids=["issuer deleted", "issuer changed", "consumer deleted", "consumer disabled", "key withdrawn"],
)
async def test_what_a_token_rests_on_ends_its_connections(plane, provider, transport, change):
    transport, codes = transport
    async with transport.opened(plane, token()) as mine, by_key(plane) as other:
        change(plane, provider)
        assert await transport.reason_of_close(mine) == codes["key-revoked"]
        await is_served(other)


async def test_a_changed_tier_reaches_live_connections_and_closes_none(plane, transport):
    transport, _ = transport
    async with transport.opened(plane, token()):
        plane.change_tier([{"metric": "messages_in", "amount": 3, "per": 60}])
        (connection,) = plane.connections
        assert [limit.amount for limit in connection.call.caller.limits] == [3]
        assert connection.closing is None
        assert connection.call.caller.key == "jwt:idp"


async def test_a_right_that_the_tier_takes_away_closes_connections_that_need_it(plane):
    async with by_socket(plane, token(), "/proxied") as socket:
        plane.snapshot.apply([("tier", "free", {"name": "free", "scopes": ["subscribe:*"]})])
        assert await closed(socket) == (3003, "forbidden")


@asynccontextmanager
async def by_key(plane):
    plane.snapshot.apply([("key", plane.other_key.id, plane._key_document("bolt", plane.other_key))])
    async with by_socket(plane, plane.other_key.text) as socket:
        yield socket


# Where a token may stand


async def test_the_caller_sees_who_it_is(plane):
    status, reply = await http(plane, "GET", "/v1/me", f"authorization: Bearer {token(scope='subscribe:trades')}")
    assert (status, reply["consumer"], reply["key"], reply["scopes"]) == (200, "acme", "jwt:idp", ["subscribe:trades"])


async def test_a_browser_offers_its_token_as_subprotocol_and_gets_it_not_back(plane):
    url = f"ws://127.0.0.1:{plane.port}/v1/stream"
    async with connect(url, subprotocols=["bearer", token()], open_timeout=WAIT_S) as socket:
        assert socket.subprotocol == "bearer"
        await heard(socket, "welcome")


@pytest.mark.parametrize("second", ["x-api-key: {key}", "authorization: Bearer {token}", "x-api-key: {token}"])
async def test_two_credentials_are_refused_whatever_they_are(plane, second):
    lines = (f"authorization: Bearer {token()}", second.format(key=plane.key.text, token=token("bolt")))
    assert (await http(plane, "GET", "/v1/me", *lines))[0] == 400


@pytest.mark.parametrize(("version", "code"), [(V311, 5), (V5, 0x86)])
@pytest.mark.parametrize("forged", [{"key": private_key("stranger")}, {"exp": 1}, {"aud": "other"}, {"iss": "x"}])
async def test_mqtt_refuses_a_token_that_does_not_hold(plane, version, code, forged):
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect(token(**forged))).content[:2] == bytes([0, code])
        assert await mqtt.ends() == b""


@pytest.mark.parametrize("text", ["a.b.c", token(key=private_key("stranger")), token(exp=1), token(sub="nobody")])
async def test_a_socket_is_refused_before_101(plane, text):
    with pytest.raises(InvalidStatus) as caught:
        async with by_socket(plane, text):
            pass
    reply = json.loads(caught.value.response.body)
    assert (caught.value.response.status_code, reply["reason"]) == (401, "unauthenticated")
