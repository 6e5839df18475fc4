"""The read-only picture of the control plane."""

import time

import pytest

from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Snapshot

DOCUMENTS = {
    "tier": [
        {"name": "gold", "limits": [{"metric": "requests", "amount": 100, "per": 10}, {"metric": "bytes_in", "amount": 9, "per": 1}]}
    ],
    "consumer": [{"name": "acme", "tier": "gold", "limits": [{"metric": "requests", "amount": 5, "per": 10}], "metadata": {"plan": 1}}],
    "key": [{"id": "k1", "consumer": "acme", "digest": "00", "scopes": ["call:*"], "metadata": {"team": 2}}],
    "route": [
        {"name": "quotes", "path": "/quotes/{symbol}", "methods": ["GET"], "protocol": "http", "handler": {"type": "upstream", "url": "http://u"}},
        {"name": "feed", "path": "/ws/feed", "methods": [], "protocol": "websocket", "handler": {"type": "upstream", "url": "ws://u"}},
        {"name": "news", "path": "/v1/notifications", "methods": ["GET"], "protocol": "sse", "handler": {"type": "channel", "channel": "notifications"}, "reserved_override": True},
        {"name": "reports", "path": "/reports", "methods": ["POST"], "protocol": "http", "handler": {"type": "job", "job_type": "reports"}},
    ],
    "channel": [{"address": "sensors/{device}/temperature", "stream": "CH_1", "subject": "sensors.*.temperature"}],
}  # fmt: skip


@pytest.fixture
def snapshot():
    return Snapshot.from_documents(DOCUMENTS)


def test_a_principal_has_its_consumers_overrides_in_place_of_its_tiers_limits(snapshot):
    principal = snapshot.principal("k1")
    assert (principal.consumer, principal.tier, principal.scopes) == ("acme", "gold", ("call:*",))
    assert {(limit.metric, limit.amount, limit.burst) for limit in principal.limits} == {
        ("requests", 5, 5),
        ("bytes_in", 9, 9),
    }
    assert principal.metadata == {"plan": 1, "team": 2}


@pytest.mark.parametrize(
    ("given", "close_at"), [({}, 20), ({"close_at": None}, 20), ({"close_at": 0}, 0), ({"close_at": 3}, 3)]
)
def test_a_limit_that_never_closes_is_read_as_one(snapshot, given, close_at):
    limit = {"metric": "messages_in", "amount": 1, "per": 1, **given}
    snapshot.apply([("consumer", "acme", {"name": "acme", "tier": "", "limits": [limit]})])
    assert [limit.close_at for limit in snapshot.principal("k1").limits] == [close_at]


@pytest.mark.parametrize(
    "change",
    [
        ("key", "k1", None),
        ("key", "k1", DOCUMENTS["key"][0] | {"revoked_at": time.time()}),
        ("consumer", "acme", None),
        ("consumer", "acme", DOCUMENTS["consumer"][0] | {"is_active": False}),
    ],
    ids=["key deleted", "key revoked", "consumer deleted", "consumer disabled"],
)
def test_a_key_that_may_not_be_used_stands_for_nobody(snapshot, change):
    assert snapshot.principal("k1") is not None
    snapshot.apply([change])
    assert snapshot.principal("k1") is None


def test_a_changed_tier_changes_the_limits_of_its_keys(snapshot):
    snapshot.principal("k1")
    snapshot.apply([("tier", "gold", {"name": "gold", "limits": [{"metric": "messages_in", "amount": 1, "per": 1}]})])
    assert {limit.metric for limit in snapshot.principal("k1").limits} == {"messages_in", "requests"}


def test_listeners_hear_which_kinds_changed(snapshot):
    heard = []
    snapshot.on_change(heard.append)
    snapshot.apply([("tier", "free", {"name": "free"}), ("route", "quotes", None)])
    assert heard == [frozenset({"tier", "route"})]


def test_one_unreadable_document_does_not_stop_the_others(snapshot, caplog):
    snapshot.apply([("tier", "bad", {"limits": "x"}), ("tier", "free", {"name": "free"})])
    assert ("tier", "free") in snapshot.names()
    assert "could not be read" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "method", "path", "handler", "target"),
    [
        (Protocol.HTTP, "GET", "/quotes/ACME", "upstream", "quotes"),
        (Protocol.HTTP, "HEAD", "/quotes/ACME", "upstream", "quotes"),
        (Protocol.WEBSOCKET, "GET", "/ws/feed", "websocket", "feed"),
        (Protocol.HTTP, "GET", "/v1/notifications", "events", "news"),
        (Protocol.HTTP, "POST", "/reports", "job.submit", "reports"),
        (Protocol.WEBSOCKET, "GET", "/v1/stream", "stream", "/v1/stream"),
        (Protocol.HTTP, "GET", "/v1/events", "events", "/v1/events"),
        (Protocol.HTTP, "POST", "/v1/channels/trades/events", "publish", "trades"),
        (Protocol.HTTP, "GET", "/v1/channels/a/b/c/events", "history", "a/b/c"),
        (Protocol.HTTP, "DELETE", "/v1/jobs/j1", "job.cancel", "/v1/jobs/{id}"),
    ],
)
def test_a_request_means_one_handler(snapshot, protocol, method, path, handler, target):
    match = snapshot.match(protocol, method, path)
    assert (match.handler, match.target) == (handler, target)


@pytest.mark.parametrize(
    ("protocol", "method", "path", "reason"),
    [
        (Protocol.HTTP, "GET", "/nowhere", Reason.NOT_FOUND),
        (Protocol.HTTP, "POST", "/quotes/ACME", Reason.METHOD_NOT_ALLOWED),
        (Protocol.HTTP, "GET", "/ws/feed", Reason.UPGRADE_REQUIRED),
        (Protocol.HTTP, "GET", "/v1/stream", Reason.UPGRADE_REQUIRED),
        (Protocol.HTTP, "HEAD", "/v1/stream", Reason.UPGRADE_REQUIRED),
        (Protocol.HTTP, "POST", "/v1/stream", Reason.METHOD_NOT_ALLOWED),
        (Protocol.HTTP, "DELETE", "/ws/feed", Reason.METHOD_NOT_ALLOWED),
        (Protocol.WEBSOCKET, "GET", "/quotes/ACME", Reason.NOT_FOUND),
        (Protocol.HTTP, "GET", "/v1/channels//events", Reason.NOT_FOUND),
    ],
)
def test_what_is_not_served_is_refused_with_its_reason(snapshot, protocol, method, path, reason):
    with pytest.raises(Refused) as caught:
        snapshot.match(protocol, method, path)
    assert caught.value.reason is reason


def test_a_concrete_address_finds_its_channel_and_parameters(snapshot):
    channel, parameters = snapshot.channel("sensors/d1/temperature")
    assert (channel.stream, parameters) == ("CH_1", {"device": "d1"})
    assert snapshot.channel("sensors/d1") is None


def test_a_route_for_every_path_takes_no_channel_events(snapshot):
    route = {"name": "all", "path": "/{rest...}", "methods": [], "protocol": "http", "handler": {"type": "upstream"}}
    snapshot.apply([("route", "all", route)])
    assert snapshot.match(Protocol.HTTP, "POST", "/v1/channels/a/../b/events").handler == "publish"
    assert snapshot.match(Protocol.HTTP, "GET", "/v1/channels/trades").target == "all"
