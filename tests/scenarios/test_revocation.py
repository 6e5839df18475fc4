"""Revoked means gone: every socket, on every process and protocol, is closed with its code and reason.

How fast is measured by ``benchmarks/revocation.py``; here a socket that has not ended after ``HUNG_S`` hangs.
"""

import asyncio
import contextlib
import os

import pytest

from benchmarks.herd import KINDS, Herd
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, Publish, Type
from tests.product import Product, eventually

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(300)]
HUNG_S = 10
REVOKED = {"stream": (3000, "key-revoked"), "sse": (0, "key-revoked"), "mqtt": (0x98, "key-revoked")}
REVOKED["proxied"] = REVOKED["stream"]
FORBIDDEN = {"stream": (3003, "forbidden"), "sse": (0, "forbidden"), "mqtt": (0x87, "forbidden")}
FORBIDDEN["proxied"] = FORBIDDEN["stream"]
SCOPES = ["call:*", "publish:*", "subscribe:*"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """One product with two web processes."""
    product = Product(tmp_path_factory.mktemp("revocation") / "var", "--workers", "2", FAILED_KEYS_PER_MINUTE="10000")
    yield product
    assert product.stop() == 0


@pytest.fixture
async def herd(two):
    herd = Herd(two.ready)
    yield herd
    await herd.close()


def tier_of(product, name, **more):
    product.admin("POST", "tiers/", {"name": name, **more})
    return name


def keys_of(product, consumer, tier, count=1):
    """Make a consumer with keys, and wait until the gateway knows the last of them. Gives (id, text) of each."""
    product.admin("POST", "consumers/", {"name": consumer, "tier": tier})
    path = f"consumers/{consumer}/keys"
    made = [product.admin("POST", path, {"scopes": SCOPES}) for _ in range(count)]
    # Over a connection of its own each: all processes are to know it.
    eventually(lambda: all(product.call("GET", "/v1/me", key=made[-1]["key"])[0] != 401 for _ in range(10)))
    return [(key["id"], key["key"]) for key in made]


async def ends(members):
    """Wait until all have ended. Gives what each was told, by kind."""
    reported = await asyncio.wait_for(asyncio.gather(*(member.ended for member in members)), HUNG_S)
    found = {}
    for member, end in zip(members, reported, strict=True):
        found.setdefault(member.kind, set()).add((end.code, end.reason))
    return found


def once(table):
    return {kind: {reported} for kind, reported in table.items()}


async def test_a_thousand_sockets_of_a_hundred_keys_over_two_processes(two, herd):
    tier_of(two, "thousand")
    keys = [key for number in range(20) for key in keys_of(two, f"thousand-{number}", "thousand", 5)]
    members = await herd.open(keys, ("stream",) * 6 + ("sse", "sse", "mqtt", "proxied"))
    assert len(members) == 1000
    for pid in two.ready["processes"]["web"]:
        assert len(os.listdir(f"/proc/{pid}/fd")) > 200
    survivors = await herd.open(keys_of(two, "survivor", "thousand"), KINDS)
    at_once = asyncio.Semaphore(8)

    async def revoke(key_id):
        async with at_once:
            await asyncio.to_thread(two.admin, "POST", f"keys/{key_id}/revoke", {"reason": "leaving"})

    await asyncio.gather(*(revoke(key_id) for key_id, _ in keys))
    assert await ends(members) == once(REVOKED)
    assert not any(survivor.ended.done() for survivor in survivors)


async def test_a_disabled_consumer_has_no_socket_left_and_gets_none(two, herd):
    keys = keys_of(two, "disabled", tier_of(two, "disabling"), 2)
    others = await herd.open(keys_of(two, "enabled", "disabling"), KINDS)
    members = await herd.open(keys, KINDS * 2)
    two.admin("PATCH", "consumers/disabled", {"is_active": False})
    assert await ends(members) == once(REVOKED)
    with pytest.raises(Exception, match="HTTP/1\\.1 401"):
        await herd.open(keys[:1], ("sse",))
    assert not any(other.ended.done() for other in others)


@pytest.mark.parametrize("loser", ["key", "tier"])
async def test_a_deleted_right_closes_the_sockets_that_need_it(two, herd, loser):
    name = tier_of(two, f"losing-{loser}")
    keys = keys_of(two, name, name, 2)
    members = await herd.open(keys, KINDS)
    needs_none = await herd.open(keys, ("idle",))
    path = f"tiers/{name}" if loser == "tier" else f"keys/{keys[0][0]}"
    two.admin("PATCH", path, {"scopes": ["publish:*", "call:*"]})
    losers = [one for one in members if loser == "tier" or one.key_id == keys[0][0]]
    readers = [one for one in losers if one.kind != "proxied"]
    assert await ends(readers) == once({kind: reported for kind, reported in FORBIDDEN.items() if kind != "proxied"})
    two.admin("PATCH", path, {"scopes": ["publish:*"]})
    callers = [one for one in losers if one.kind == "proxied"]
    assert await ends(callers) == {"proxied": {FORBIDDEN["proxied"]}}
    assert not any(one.ended.done() for one in needs_none + [one for one in members if one not in losers])


async def test_a_leaked_key_is_revoked_and_its_owner_named(two, herd):
    ((key_id, key),) = keys_of(two, "careless", tier_of(two, "careless"))
    members = await herd.open([(key_id, key)], KINDS)
    assert two.admin("POST", "keys/leaked", {"key": key}) == {"revoked": True, "id": key_id}
    assert await ends(members) == once(REVOKED)
    change = two.admin("GET", f"audit?kind=key&name={key_id}")["results"][0]
    assert change["note"] == "leaked: reported in public; its owner is careless"
    assert change["after"]["consumer"] == "careless"


async def test_a_changed_tier_limits_live_sockets_anew_and_closes_none(two, herd):
    tier_of(two, "changing")
    keys = keys_of(two, "changing", "changing")
    stream, mqtt, proxied = await herd.open(keys, ("stream", "mqtt", "proxied"))
    members = [stream, mqtt, proxied]
    assert await refusals(two, stream, mqtt, keys[0][1]) == (None, 0, 201)
    assert not await is_refused(proxied)
    two.admin("PATCH", "tiers/changing", {"limits": [{"metric": "messages_in", "amount": 1, "per": 3600}]})
    limited = ("rate-limited", 0x97, 429)
    await until(lambda: refusals(two, stream, mqtt, keys[0][1]), limited)
    await until(lambda: is_refused(proxied), True)
    assert not any(member.ended.done() for member in members)
    two.admin("PATCH", "tiers/changing", {"limits": []})
    await until(lambda: refusals(two, stream, mqtt, keys[0][1]), (None, 0, 201))
    assert not any(member.ended.done() for member in members)
    await until(lambda: is_refused(proxied), False)


async def test_a_changed_tier_limits_live_deliveries_anew_and_loses_none(two, herd):
    tier_of(two, "holding", limits=[{"metric": "messages_out", "amount": 1, "per": 3600, "scope": "connection"}])
    bench = two.ready["keys"]["bench"]
    members = await herd.open(keys_of(two, "holding", "holding"), ("stream", "sse", "mqtt"))
    for number in range(3):
        assert two.call("POST", "/v1/channels/trades/events", {"n": number}, bench)[0] == 201
    await until(lambda: counts([member.events for member in members]), [1, 1, 1])
    two.admin("PATCH", "tiers/holding", {"limits": []})
    await until(lambda: counts([member.events for member in members]), [3, 3, 3])
    assert not any(member.ended.done() for member in members)


async def refusals(product, stream, mqtt, key):
    """Publish over three doors. Gives what the stream, MQTT and REST said: nothing, 0 and 201 where all was well."""
    stream.heard.clear()
    mqtt.heard.clear()
    stream.say({"type": "publish", "channel": "trades", "data": 1})
    mqtt.writer.write(codec.publish(V5, Publish("trades", b"1", 1, packet_id=7)))
    path = "/v1/channels/trades/events"
    status, _, _ = await asyncio.to_thread(product.call, "POST", path, {"n": 1}, key)
    async with asyncio.timeout(HUNG_S):
        while not (stream.heard and mqtt.heard):
            await asyncio.sleep(0.01)
    ((type_, content),) = mqtt.heard
    assert type_ is Type.PUBACK
    return stream.heard[0].get("reason"), content[2] if len(content) > 2 else 0, status


async def is_refused(proxied):
    """Send a message to the upstream, and return whether the gateway refused it in band; ticks are skipped."""
    proxied.heard.clear()
    before = proxied.events
    proxied.say(b"anything")
    async with asyncio.timeout(HUNG_S):
        while not proxied.heard and proxied.events < before + 10:
            await asyncio.sleep(0.01)
    return [reported["reason"] for reported in proxied.heard] == ["rate-limited"]


async def counts(value):
    return value


async def until(look, wanted):
    """Look until it is as wanted."""
    seen = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HUNG_S):
            while seen != wanted:
                seen = await look()
                await asyncio.sleep(0.05)
    assert seen == wanted
