"""Events expire over HTTP: from their ``expirytime`` on nobody receives them; a forged one is refused."""

import asyncio
import json
import time
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from gateway.handlers import channel as handlers
from gateway.log.event import rfc3339
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.clock import HOUR_S, Clock
from gateway.tests.event_plane import HttpExchange, channel, running


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [channel("trades")]) as plane:
        yield plane


def in_seconds(seconds):
    return rfc3339(datetime.fromtimestamp(time.time() + seconds, UTC))


async def post(plane, value, expiry=None):
    event = {"specversion": "1.0", "id": f"{value}", "source": "/till", "type": "sold", "data": value}
    exchange = HttpExchange(json.dumps(event | ({} if expiry is None else {"expirytime": expiry})).encode())
    headers = [(b"content-type", b"application/cloudevents+json")]
    call = plane.call(peer=exchange, method="POST", parameters={"address": "trades"}, headers=headers)
    await handlers.publish_events(plane, call)
    return exchange.parsed["id"]


async def history(plane, **query):
    exchange = HttpExchange()
    parameters = {"address": "trades"}
    await handlers.history(plane, plane.call(peer=exchange, parameters=parameters, query=urlencode(query).encode()))
    return exchange.parsed


@pytest.mark.parametrize(
    "expiry",
    [
        "2020-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "-0001-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z", "99999999999", "1e400", "NaN", "Infinity", "-1", "PT1H", "tomorrow", "2099-01-01",
        "2099-01-01T00:00:00", "2099-02-30T00:00:00Z", "2099-01-01T25:00:00Z", "2099-W01-1T00:00:00Z",
        "2099-01-01T00:00:00+99:99", "2099-01-01T00:00:00+00:60", "2099-01-01T00:00:00z ",
        4102444800, -1, 10**300, True,
    ],
)  # fmt: skip
async def test_an_expiry_that_is_no_coming_instant_is_refused(plane, expiry):
    with pytest.raises(Refused) as refused:
        await post(plane, 1, expiry)
    assert refused.value.reason is Reason.INVALID_PAYLOAD
    assert refused.value.members["pointer"] == "/expirytime"
    assert (await history(plane))["results"] == []


@pytest.mark.parametrize(
    "expiry", ["9999-12-31T23:59:59-23:59", "2999-01-01T00:00:00.123456789+14:00", "2999-01-01t00:00:00z"]
)
async def test_an_event_may_expire_in_any_year_of_rfc_3339(plane, expiry):
    id_ = await post(plane, 1, expiry)
    assert [event["id"] for event in (await history(plane))["results"]] == [id_]


async def test_an_instant_in_lower_case_counts(plane, monkeypatch):
    """RFC 3339 5.6 allows it."""
    clock = Clock(monkeypatch)
    await post(plane, 1, in_seconds(HOUR_S / 2).lower())
    clock.jump(HOUR_S)
    assert (await history(plane))["results"] == []


async def test_history_leaves_expired_events_out_and_goes_on_after_them(plane, monkeypatch):
    clock = Clock(monkeypatch)
    soon, late = in_seconds(HOUR_S / 2), in_seconds(3 * HOUR_S)
    ids = [await post(plane, 1, late), await post(plane, 2, soon), await post(plane, 3, soon), await post(plane, 4)]
    assert [event["id"] for event in (await history(plane))["results"]] == ids
    clock.jump(HOUR_S)
    assert [event["id"] for event in (await history(plane))["results"]] == [ids[0], ids[3]]
    page = await history(plane, after=ids[0], limit="2")
    assert page == {"results": [], "next": f"http://gateway.test/v1/channels/trades/events?after={ids[2]}&limit=2"}


async def test_an_event_stream_leaves_expired_events_out_stored_or_live(plane, monkeypatch):
    clock = Clock(monkeypatch)
    await post(plane, "first", in_seconds(HOUR_S / 2))
    await post(plane, "second", in_seconds(3 * HOUR_S))
    exchange = HttpExchange()
    query = urlencode({"channel": "trades", "from": "earliest"}).encode()
    clock.jump(HOUR_S)
    serving = asyncio.create_task(handlers.events(plane, plane.call(Protocol.SSE, peer=exchange, query=query)))
    await exchange.until(b"second")
    # Stored by another host, whose clock is an hour behind.
    found, _ = plane.snapshot.channel("trades")
    headers = {"ce-expirytime": in_seconds(-1), "content-type": "application/json"}
    await plane.log.publish(found, found.subject, b'"third"', headers)
    await post(plane, "fourth")
    body = await exchange.until(b"fourth")
    assert (b"first" in body, b"third" in body) == (False, False)
    exchange.leave()
    await serving


async def test_a_stored_expiry_that_is_no_instant_counts_as_none(plane):
    """Earlier versions stored the attribute as it came."""
    found, _ = plane.snapshot.channel("trades")
    for expiry in ("soon", "2020-01-01T00:00:00", "1e400"):
        await plane.log.publish(
            found, found.subject, b"1", {"ce-expirytime": expiry, "content-type": "application/json"}
        )
    assert len((await history(plane))["results"]) == 3
