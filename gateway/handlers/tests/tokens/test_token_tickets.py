"""Tickets that are issued for a token."""

import time
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.handlers.tests.tokens.token_clients import closed, heard, http
from gateway.tests.clock import EACH_WAY, Clock
from gateway.tests.event_plane import WAIT_S
from gateway.tests.identity_provider import jwk, token


async def ticket_of(plane, text):
    status, body = await http(plane, "POST", "/v1/tickets", f"authorization: Bearer {text}")
    assert status == 201
    return body["ticket"]


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
        holder = connection.call.caller
        assert (holder.consumer, holder.key, holder.scopes, holder.expires_at) == (
            "acme", "jwt:idp", ("subscribe:trades",), expires_at,
        )  # fmt: skip
        assert holder.metadata["claims"]["role"] == "reader"
        assert holder.token.signer is plane.key_sets._sets["idp"].keys[0]
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
