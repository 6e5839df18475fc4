"""Live connections of those who came with a token, at every door: their end, their limits, a newer token in band."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.handlers import me, ticket
from gateway.handlers.proxy import http as upstream_handler
from gateway.handlers.proxy import websocket
from gateway.handlers.tests.test_channels_on_the_wire import served
from gateway.tests.clock import EACH_WAY, Clock
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.http_plane import eventually, route, upstream_that
from gateway.tests.identity_provider import identity_provider, jwk, private_key, token
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.tests.valkey_server import ValkeyServer
from gateway.wire.mqtt.packets import V5, V311

CHANNELS = [channel("trades")]
TOKENS_ALONE = {
    **route("tokens", "/tokens", "", protocol="websocket", methods=["GET"]),
    "handler": {"type": "channel", "channel": "trades"},
    "policies": [{"type": "jwt"}],
}


@dataclass
class Door:
    """One way in: opens a connection with a token, and tells how it ended."""

    opened: object
    said_at_the_end: object


@asynccontextmanager
async def by_socket(plane, text, path="/v1/stream"):
    headers = {"authorization": f"Bearer {text}"}
    url = f"ws://127.0.0.1:{plane.port}{path}"
    async with connect(url, additional_headers=headers, open_timeout=WAIT_S, compression=None) as socket:
        yield socket


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


async def feed(asked, reader, writer):
    """Send an event, and then nothing for a long time."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
    await reader.read()
    return True


def by_mqtt(version):
    @asynccontextmanager
    async def opened(plane, text):
        async with client(plane, version) as mqtt:
            answer = await mqtt.connect(text)
            assert answer.content[1] == 0, answer
            yield mqtt

    return opened


async def closed(socket):
    async with asyncio.timeout(WAIT_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd and (end.rcvd.code, json.loads(end.rcvd.reason)["reason"])


async def ended(reader):
    """Read an event stream to its end, which is a whole answer's."""
    text = (await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), WAIT_S)).decode()
    last = text[text.rindex("event: error\ndata: ") :].split("data: ")[1].split("\n")[0]
    return json.loads(last)["reason"]


async def disconnected(mqtt):
    return (await mqtt.ends())[:3:2].hex()


DOORS = {
    "websocket": (by_socket, closed, {"token-expired": (3000, "token-expired"), "key-revoked": (3000, "key-revoked")}),
    "proxied websocket": (
        by_proxied_socket, closed, {"token-expired": (3000, "token-expired"), "key-revoked": (3000, "key-revoked")},
    ),
    "sse": (by_events, ended, {"token-expired": "token-expired", "key-revoked": "key-revoked"}),
    "proxied sse": (by_proxied_events, ended, {"token-expired": "token-expired", "key-revoked": "key-revoked"}),
    "mqtt 5": (by_mqtt(V5), disconnected, {"token-expired": "e0a0", "key-revoked": "e098"}),
    "mqtt 3.1.1": (by_mqtt(V311), disconnected, {"token-expired": "", "key-revoked": ""}),
}  # fmt: skip


@pytest.fixture(params=DOORS.values(), ids=list(DOORS))
def door(request):
    return Door(*request.param[:2]), request.param[2]


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory):
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def provider():
    async with identity_provider() as made:
        yield made


async def echo(socket):
    async for message in socket:
        await socket.send(message)


@pytest.fixture
async def plane(nats_server, valkey_server, tmp_path, provider):
    async with serve_sockets(echo, "127.0.0.1", 0, compression=None) as upstream, upstream_that(feed) as feeding:
        port = upstream.sockets[0].getsockname()[1]
        routes = [
            route("proxied", "/proxied", f"ws://127.0.0.1:{port}/", protocol="websocket"),
            route("feed", "/feed", feeding.url, protocol="sse"),
            TOKENS_ALONE,
        ]
        settings = {"routes": routes, "redis_url": valkey_server.url}
        async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, **settings) as plane:
            plane.handlers |= {
                "websocket": websocket.proxy,
                "upstream": upstream_handler.forward,
                "ticket": ticket.issue,
                "me": me.show,
            }
            plane.snapshot.apply([("issuer", "idp", provider.document())])
            plane.connections.start()
            plane.key_sets.start()
            async with served(plane) as plane.port:
                yield plane
            await plane.connections.stop()


@pytest.fixture
def an_hour_later(monkeypatch):
    """Set the clock forward, once what is to expire is open."""
    now = time.time

    def later():
        monkeypatch.setattr(time, "time", lambda: now() + 3600)

    return later


async def test_a_token_s_expiry_closes_its_connection_and_no_other(plane, door, an_hour_later):
    door, codes = door
    sooner, later = token("acme", exp=time.time() + 1800), token("bolt", exp=time.time() + 7200)
    async with door.opened(plane, sooner) as mine, by_socket(plane, later) as other:
        an_hour_later()
        assert await door.said_at_the_end(mine) == codes["token-expired"]
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
async def test_what_a_token_rests_on_ends_its_connections(plane, provider, door, change):
    door, codes = door
    async with door.opened(plane, token()) as mine, by_key(plane) as other:
        change(plane, provider)
        assert await door.said_at_the_end(mine) == codes["key-revoked"]
        await is_served(other)


async def test_a_changed_tier_reaches_live_connections_and_closes_none(plane, door):
    door, _ = door
    async with door.opened(plane, token()):
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


def outcomes(plane):
    return {(label[5], label[6]) for label in plane.usage._tallies}


async def heard(socket, type_):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        if frame["type"] == type_:
            return frame


async def is_served(socket):
    await socket.send('{"type":"ping"}')
    await heard(socket, "pong")


async def say(socket, **frame):
    await socket.send(json.dumps(frame))


# Where a token may stand


async def http(plane, method, path, *lines):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "host: g", "connection: close", *lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])  # chunked or not


async def test_the_caller_sees_who_it_is(plane):
    status, said = await http(plane, "GET", "/v1/me", f"authorization: Bearer {token(scope='subscribe:trades')}")
    assert (status, said["consumer"], said["key"], said["scopes"]) == (200, "acme", "jwt:idp", ["subscribe:trades"])


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
    said = json.loads(caught.value.response.body)
    assert (caught.value.response.status_code, said["reason"]) == (401, "unauthenticated")


# A newer credential in band


async def test_a_newer_token_extends_a_connection(plane, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 1800)) as socket:
        later = time.time() + 7200
        await say(socket, type="auth", token=token(exp=later), ref="7")
        assert await heard(socket, "authenticated") == {"type": "authenticated", "expires_at": later, "ref": "7"}
        an_hour_later()
        await is_served(socket)
        await asyncio.sleep(0.3)
        await is_served(socket)


async def test_a_newer_token_that_ends_sooner_ends_the_connection_sooner(plane, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 7200)) as socket:
        await say(socket, type="auth", token=token(exp=time.time() + 1800))
        await heard(socket, "authenticated")
        an_hour_later()
        assert await closed(socket) == (3000, "token-expired")


@pytest.mark.parametrize(
    ("shown", "reason", "cause"),
    [
        (lambda plane: token("bolt"), "forbidden", "auth-other-consumer"),
        (lambda plane: plane.other_key.text, "forbidden", "auth-other-consumer"),
        (lambda plane: token(key=private_key("stranger")), "unauthenticated", "token-signature"),
        (lambda plane: token(exp=1), "unauthenticated", "token-expired"),
        (lambda plane: "nonsense", "unauthenticated", "key-malformed"),
        (lambda plane: token(filler="x" * 9000), "invalid-request", "credential-malformed"),
        (lambda plane: 7, "invalid-request", "malformed-request"),
    ],
    ids=["another consumer's token", "another consumer's key", "forged", "expired", "nonsense", "too long", "no text"],
)
async def test_a_credential_that_does_not_hold_is_told_and_changes_nothing(plane, shown, reason, cause, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 1800)) as socket:
        (connection,) = plane.connections
        await say(socket, type="auth", token=shown(plane), ref="1")
        error = await heard(socket, "error")
        assert (error["reason"], error["ref"]) == (reason, "1")
        assert reason == "invalid-request" or connection.refusals == {cause: 1}
        await is_served(socket)
        assert connection.call.caller.consumer == "acme"
        an_hour_later()
        assert await closed(socket) == (3000, "token-expired")


async def test_guessing_in_band_is_stopped_as_anywhere(plane):
    async with by_socket(plane, token()) as socket:
        for _ in range(20):
            await say(socket, type="auth", token=token(key=private_key("stranger")))
            assert (await heard(socket, "error"))["reason"] == "unauthenticated"
        await say(socket, type="auth", token=token(key=private_key("stranger")))
        assert (await heard(socket, "error"))["reason"] == "rate-limited"
        await is_served(socket)


async def test_a_connection_may_go_from_a_key_to_a_token_and_back(plane, an_hour_later):
    async with by_socket(plane, plane.key.text) as socket:
        await say(socket, type="auth", token=token(exp=time.time() + 1800))
        await heard(socket, "authenticated")
        await say(socket, type="auth", token=plane.key.text)
        assert (await heard(socket, "authenticated"))["expires_at"] is None
        an_hour_later()
        await asyncio.sleep(0.3)
        await is_served(socket)


async def test_a_route_that_takes_tokens_alone_takes_no_key_in_band_either(plane):
    with pytest.raises(InvalidStatus):
        async with by_socket(plane, plane.key.text, "/tokens"):
            pass
    plane.snapshot.apply([("key", plane.key.id, {**plane._key_document("acme", plane.key), "scopes": ["*"]})])
    with pytest.raises(InvalidStatus) as caught:
        async with by_socket(plane, plane.key.text, "/tokens"):
            pass
    assert caught.value.response.status_code == 401
    async with by_socket(plane, token(), "/tokens") as socket:
        await heard(socket, "welcome")
        await say(socket, type="auth", token=plane.key.text)
        assert (await heard(socket, "error"))["reason"] == "unauthenticated"
        await is_served(socket)


async def test_a_route_that_takes_tokens_alone_from_now_on_lets_go_of_keys(plane):
    plane.snapshot.apply([("key", plane.key.id, {**plane._key_document("acme", plane.key), "scopes": ["*"]})])
    plane.snapshot.apply([("route", "tokens", {**TOKENS_ALONE, "policies": []})])
    async with by_socket(plane, plane.key.text, "/tokens") as by_a_key, by_socket(plane, token(), "/tokens") as mine:
        await heard(mine, "welcome")
        plane.snapshot.apply([("route", "tokens", TOKENS_ALONE)])
        assert await closed(by_a_key) == (3000, "unauthenticated")
        await is_served(mine)


# Tickets


async def ticket_of(plane, text):
    status, said = await http(plane, "POST", "/v1/tickets", f"authorization: Bearer {text}")
    assert status == 201
    return said["ticket"]


@asynccontextmanager
async def by_ticket(plane, shown, path="/v1/stream"):
    async with connect(f"ws://127.0.0.1:{plane.port}{path}?ticket={shown}", open_timeout=WAIT_S) as socket:
        yield socket


async def test_a_ticket_carries_what_its_token_proved(plane, an_hour_later):
    expires_at = time.time() + 1800
    text = token(exp=expires_at, scope="subscribe:trades", role="reader")
    async with by_ticket(plane, await ticket_of(plane, text)) as socket:
        await heard(socket, "welcome")
        (connection,) = plane.connections
        who = connection.call.caller
        assert (who.consumer, who.key, who.scopes, who.expires_at) == (
            "acme", "jwt:idp", ("subscribe:trades",), expires_at,
        )  # fmt: skip
        assert who.metadata["claims"]["role"] == "reader"
        assert who.token.signer is plane.key_sets._sets["idp"].keys[0]
        an_hour_later()
        assert await closed(socket) == (3000, "token-expired")


async def refused_ticket(plane, shown):
    with pytest.raises(InvalidStatus) as caught:
        async with by_ticket(plane, shown):
            pass
    return caught.value.response.status_code


async def test_a_ticket_of_a_token_works_once(plane):
    shown = await ticket_of(plane, token())
    async with by_ticket(plane, shown) as socket:
        await heard(socket, "welcome")
        assert await refused_ticket(plane, shown) == 401


@EACH_WAY
async def test_a_ticket_does_not_outlive_a_clock_that_is_set(plane, monkeypatch, jump_s):
    shown = await ticket_of(plane, plane.key.text)
    Clock(monkeypatch).jump(jump_s)
    assert await refused_ticket(plane, shown) == 401
    async with by_ticket(plane, await ticket_of(plane, plane.key.text)) as socket:
        await heard(socket, "welcome")


async def test_a_ticket_outlives_neither_its_token_nor_what_that_rests_on(plane, provider, an_hour_later):
    def withdraw():
        provider.publish(jwk("k2"))
        plane.key_sets._replace(plane.key_sets._sets["idp"], [])

    changes = [
        lambda: plane.snapshot.apply([("issuer", "idp", provider.document(audience="other"))]),
        lambda: plane.snapshot.apply([("issuer", "idp", None)]),
        lambda: plane.snapshot.apply([("consumer", "acme", {"name": "acme", "tier": "free", "is_active": False})]),
        withdraw,
        an_hour_later,
    ]
    for change in changes:
        shown = await ticket_of(plane, token(exp=time.time() + 1800))
        change()
        assert await refused_ticket(plane, shown) == 401
        plane.snapshot.apply([("consumer", "acme", {"name": "acme", "tier": "free"})])
        plane.snapshot.apply([("issuer", "idp", provider.document())])
        provider.publish(jwk("k1"))
        plane.key_sets._sets.clear()
        plane.key_sets._nudge.set()


async def test_the_store_holds_no_token_and_no_usable_ticket(plane):
    text = token()
    shown = await ticket_of(plane, text)
    (name,) = await plane.redis.keys("ticket:*")
    kept = await plane.redis.get(name)
    assert shown.encode() not in name + kept
    assert text.split(".")[2].encode() not in kept


async def test_a_ticket_of_a_key_that_another_process_has_not_seen_yet_works(plane, provider):
    """A process whose key set is behind looks again, as for the token itself."""
    provider.publish(jwk("k1"), jwk("k2"))
    plane.key_sets._sets.clear()
    shown = await ticket_of(plane, token(kid="k2"))
    behind = plane.key_sets._sets["idp"]
    behind.keys = behind.keys[:1]
    async with by_ticket(plane, shown) as socket:
        await heard(socket, "welcome")
