"""Open sockets of one process: refreshed, revoked, expired, drained."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.call import Call
from gateway.connections.open import Connections
from gateway.protocol import Protocol
from gateway.refusals import Reason
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.right import Right, Verb

KEY = {"id": "k1", "consumer": "acme", "digest": "00", "scopes": ["call:feed"]}
CONSUMER = {"name": "acme", "tier": "gold"}


@pytest.fixture
def snapshot():
    return Snapshot.from_documents({"tier": [{"name": "gold"}], "consumer": [CONSUMER], "key": [KEY]})


@pytest.fixture
def connections(snapshot):
    return Connections(snapshot)


@pytest.fixture
def connected(snapshot, connections):
    """Open one connection and keep what it was closed with."""
    closed = []
    call = Call(
        Protocol.WEBSOCKET, "/ws/feed", "192.0.2.1", rights=(Right(Verb.CALL, "feed"),), origin="https://app.example"
    )
    call.principal = snapshot.principal("k1")
    connections.open(call, closed.append)
    return call, closed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("key", "k1", KEY | {"revoked_at": time.time()}), Reason.KEY_REVOKED),
        (("key", "k1", None), Reason.KEY_REVOKED),
        (("consumer", "acme", CONSUMER | {"is_active": False}), Reason.KEY_REVOKED),
        (("key", "k1", KEY | {"scopes": ["call:other"]}), Reason.FORBIDDEN),
        (("tier", "gold", {"name": "gold", "scopes": ["call:other"]}), Reason.FORBIDDEN),
        (("tier", "gold", {"name": "gold", "scopes": []}), Reason.FORBIDDEN),
        (("key", "k1", KEY | {"allowed_ips": ["198.51.100.0/24"]}), Reason.IP_NOT_ALLOWED),
        (("key", "k1", KEY | {"allowed_origins": ["https://other.example"]}), Reason.ORIGIN_NOT_ALLOWED),
    ],
    ids=[
        "revoked",
        "deleted",
        "consumer disabled",
        "right withdrawn",
        "right of the tier withdrawn",
        "all withdrawn",
        "other addresses",
        "other pages",
    ],
)
def test_a_connection_that_lost_its_right_is_closed(snapshot, connected, change, reason):
    _, closed = connected
    snapshot.apply([change])
    assert [refused.reason for refused in closed] == [reason]


def test_a_connection_from_where_its_key_may_still_be_used_stays(snapshot, connected):
    _, closed = connected
    places = {"allowed_ips": ["192.0.2.0/24"], "allowed_origins": ["https://app.example"]}
    snapshot.apply([("key", "k1", KEY | places)])
    assert closed == []


def test_a_connection_that_does_not_need_the_right_stays(snapshot, connected):
    _, closed = connected
    snapshot.apply([("tier", "gold", {"name": "gold", "scopes": ["call:feed"]})])
    assert closed == []


def test_who_uses_more_than_its_call_needs_is_asked_whether_it_still_may(snapshot, connected):
    call, closed = connected
    requested = []
    call.connection.keeps_rights = lambda: requested.append(call.caller.ceiling) or False
    snapshot.apply([("tier", "gold", {"name": "gold", "scopes": ["call:feed"]})])
    assert requested == [("call:feed",)]
    assert [refused.reason for refused in closed] == [Reason.FORBIDDEN]


def test_a_changed_tier_reaches_a_live_connection_without_closing_it(snapshot, connected):
    call, closed = connected
    snapshot.apply([("tier", "gold", {"name": "gold", "limits": [{"metric": "messages_in", "amount": 3, "per": 1}]})])
    assert closed == []
    assert [limit.amount for limit in call.caller.limits] == [3]


def test_a_key_revoked_during_the_handshake_closes_the_connection_as_it_opens(snapshot, connections):
    call = Call(Protocol.MQTT, "", "192.0.2.1")
    call.principal = snapshot.principal("k1")
    snapshot.apply([("key", "k1", None)])
    closed = []
    connections.open(call, closed.append)
    assert [refused.reason for refused in closed] == [Reason.KEY_REVOKED]


def test_only_the_first_reason_counts(connected, snapshot, connections):
    call, closed = connected
    snapshot.apply([("key", "k1", None)])
    snapshot.apply([("consumer", "acme", None)])
    assert len(closed) == 1
    assert call.connection.closing is closed[0]


async def test_an_expired_key_closes_its_connections(snapshot, connections, connected):
    _, closed = connected
    connections.start()
    snapshot.apply([("key", "k1", KEY | {"expires_at": time.time() - 1})])
    async with asyncio.timeout(5):
        while not closed:
            await asyncio.sleep(0.01)
    await connections.stop()
    assert closed[0].reason is Reason.TOKEN_EXPIRED


async def test_draining_asks_everybody_to_leave_and_waits_until_they_have(connections, connected):
    call, closed = connected
    draining = asyncio.create_task(connections.drain(5))
    while not closed:
        await asyncio.sleep(0)
    assert closed[0].reason is Reason.DRAINING
    assert not draining.done()
    connections.closed(call.connection)
    await draining
    assert len(connections) == 0


def test_counting_is_per_message_and_per_byte(connected):
    call, _ = connected
    call.connection.received(10)
    call.connection.received(5, messages=0)
    call.connection.sent(7)
    assert (call.connection.messages_in, call.connection.bytes_in) == (1, 15)
    assert (call.connection.messages_out, call.connection.bytes_out) == (1, 7)


def test_who_is_held_back_is_told_so_at_most_once_a_second(connected):
    call, _ = connected
    reported = [call.connection.may_notify_delay(now) for now in (5.0, 5.5, 5.99, 6.0, 6.5, 7.1)]
    assert reported == [True, False, False, True, False, True]


def expiring(snapshot, connections, expires_at):
    """Open a connection of a key that expires."""
    name = f"k{expires_at}"
    snapshot.apply([("key", name, KEY | {"id": name, "expires_at": expires_at})])
    closed = []
    call = Call(Protocol.WEBSOCKET, "/ws/feed", "192.0.2.1")
    call.principal = snapshot.principal(name)
    return connections.open(call, closed.append), closed


def test_each_connection_is_closed_at_its_own_expiry_and_not_before(snapshot, connections):
    now = time.time()
    first, second, third = (expiring(snapshot, connections, now + after) for after in (10, 20, 10))
    connections._close_expired(now + 9.9)
    assert [len(closed) for _, closed in (first, second, third)] == [0, 0, 0]
    connections._close_expired(now + 10)
    assert [len(closed) for _, closed in (first, second, third)] == [1, 0, 1]
    assert connections._next_expiry == now + 20
    connections._close_expired(now + 20)
    assert second[1][0].reason is Reason.TOKEN_EXPIRED
    assert connections._next_expiry == float("inf")


def test_a_newer_credential_moves_the_expiry_both_ways(snapshot, connections):
    now = time.time()
    connection, closed = expiring(snapshot, connections, now + 10)
    later, sooner, never = (replace(connection.call.caller, expires_at=at) for at in (now + 30, now + 5, None))
    connections.rebind(connection, later)
    connections._close_expired(now + 20)
    connections.rebind(connection, sooner)
    assert connections._next_expiry <= now + 5
    connections.rebind(connection, never)
    connections._close_expired(now + 10**6)
    assert closed == []


def test_a_connection_that_has_ended_is_not_watched(snapshot, connections):
    connection, closed = expiring(snapshot, connections, time.time() + 10)
    connections.closed(connection)
    connections.rebind(connection, replace(connection.call.caller, expires_at=time.time() + 30))
    connections._close_expired(time.time() + 60)
    assert (closed, connections._expiring) == ([], {})
