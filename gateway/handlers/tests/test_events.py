"""Server-sent events: what a stream sends, where it resumes, and how it ends."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest

from gateway.handlers import channel as handlers
from gateway.handlers import events
from gateway.log.streams import ensure_stream
from gateway.metering import usage
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import HttpExchange, channel, running

CHANNELS = [channel("trades"), channel("news"), channel("sensors/{id}/t", schema={"type": "number"})]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS, sse_heartbeat_s=0.05) as plane:
        yield plane


async def post(plane, body, address="trades", **headers):
    exchange = HttpExchange(body if isinstance(body, bytes) else json.dumps(body).encode())
    call = plane.call(
        peer=exchange,
        method="POST",
        parameters={"address": address},
        headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    )
    reply = await handlers.publish_events(plane, call)
    assert reply.status == exchange.status == 201
    return exchange.parsed


@asynccontextmanager
async def listening(plane, *pairs, headers=(), **more):
    exchange = HttpExchange()
    call = plane.call(Protocol.SSE, peer=exchange, query=urlencode(pairs).encode(), headers=list(headers), **more)
    exchange.call = call
    exchange.serving = asyncio.create_task(handlers.events(plane, call))
    try:
        yield exchange
    finally:
        exchange.leave()
        exchange.reply = await exchange.serving
        if call.connection:
            plane.connections.closed(call.connection)


async def refused_events(plane, *pairs, **more):
    call = plane.call(Protocol.SSE, peer=HttpExchange(), query=urlencode(pairs).encode(), **more)
    with pytest.raises(Refused) as refused:
        await handlers.events(plane, call)
    return refused.value


async def test_a_stream_of_events_can_be_read_by_eventsource(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        answer = await post(plane, b'{\n"price":1}')
        body = await exchange.until(b"price")
        assert f'id: {answer["id"]}\ndata: {{\ndata: "price":1}}\n\n'.encode() in body
        assert b"event:" not in body
        assert exchange.headers["content-type"].startswith("text/event-stream")
        assert exchange.headers["cache-control"] == "no-store"
        assert exchange.headers["x-accel-buffering"] == "no"
        assert exchange.call.connection.messages_out == 1
    assert (exchange.reply.status, exchange.reply.closed_by) == (200, "client")


async def test_an_idle_stream_has_a_heartbeat_that_counts_for_nothing(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"\n:\n\n")
        assert exchange.call.connection.messages_out == 0


@pytest.mark.parametrize("by_header", [True, False])
async def test_the_last_id_seen_resumes_without_hole_or_double(plane, by_header):
    ids = (await post(plane, list(range(6))))["ids"]
    pairs = [("channel", "trades"), ("from", "earliest")]
    headers = [(b"last-event-id", ids[2].encode())] if by_header else []
    if not by_header:
        pairs.append(("last_event_id", ids[2]))
    async with listening(plane, *pairs, headers=headers) as exchange:
        last = (await post(plane, {"n": 6}))["id"]
        body = await exchange.until(f"id: {last}\n".encode())
    assert [line[4:].decode() for line in body.splitlines() if line.startswith(b"id: ")] == [*ids[3:], last]


async def test_several_channels_share_one_id_of_their_positions_in_order(plane):
    async with listening(plane, ("channel", "trades"), ("channel", "news")) as exchange:
        await exchange.until(b"retry: ")
        news = (await post(plane, {"n": 1}, "news"))["id"]
        await exchange.until(b'{"n": 1}')
        trades = (await post(plane, {"t": 1}))["id"]
        body = await exchange.until(b'{"t": 1}')
        assert f"id: {news}-{trades}\n".encode() in body
    missed = (await post(plane, {"t": 2}))["id"]
    headers = [(b"last-event-id", f"{news}-{trades}".encode())]
    async with listening(plane, ("channel", "news"), ("channel", "trades"), headers=headers) as exchange:
        body = await exchange.until(b'{"t": 2}')
        assert f"id: {news}-{missed}\n".encode() in body
        assert b'{"t": 1}' not in body


async def test_a_client_that_loses_a_stream_before_its_first_event_resumes_where_it_began(plane):
    await post(plane, {"t": 0})
    await post(plane, {"n": 0}, "news")
    for channels in ((("channel", "trades"),), (("channel", "news"), ("channel", "trades"))):
        async with listening(plane, *channels) as exchange:
            body = await exchange.until(b"\nid:")
        begun = body.rpartition(b"\nid:")[2].split()[0]
        missed = (await post(plane, {"missed": 1}))["id"]
        async with listening(plane, *channels, headers=[(b"last-event-id", begun)]) as exchange:
            body = await exchange.until(b'{"missed": 1}')
        assert body.count(b"data:") == 1
        assert missed.encode() in body


async def test_each_of_several_channels_has_its_place_in_the_first_id(plane):
    news = (await post(plane, {"n": 1}, "news"))["id"]
    trades = (await post(plane, list(range(3))))["ids"]
    # The events of news are there before trades has begun: its place is not that of the oldest event.
    before = f"{int(news) - 1}-{trades[1]}".encode()
    async with listening(
        plane, ("channel", "news"), ("channel", "trades"), headers=[(b"last-event-id", before)]
    ) as exchange:
        body = await exchange.until(b"data: 2\n")
    assert body.split(b"id: ")[1].split(b"\n")[0].decode() in (f"{news}-{trades[1]}", f"{int(news) - 1}-{trades[2]}")
    assert b"-0\n" not in body
    await post(plane, {"n": 2}, "news")
    async with listening(plane, ("channel", "news"), ("channel", "trades"), ("from", "latest")) as exchange:
        await exchange.until(b"\nid:")
        await post(plane, {"n": 3}, "news")
        assert f"-{trades[2]}\n".encode() in await exchange.until(b'{"n": 3}')


@pytest.mark.parametrize(
    ("instant", "hears_old"),
    [
        ("0001-01-01T00:00:00+14:00", True), ("1600-01-01T00:00:00Z", True), ("1969-12-31T23:59:59Z", True),
        ("1970-01-01t00:00:00z", True), ("2999-01-01T00:00:00Z", False), ("9999-12-31T23:59:59-14:00", False),
    ],
)  # fmt: skip
async def test_an_instant_that_the_log_cannot_tell_is_before_or_after_all_events(plane, instant, hears_old):
    await post(plane, {"old": 1})
    async with listening(plane, ("channel", "trades"), ("from", instant)) as exchange:
        await exchange.until(b"retry: ")
        await post(plane, {"new": 1})
        assert (b"old" in await exchange.until(b"new")) is hears_old


async def test_a_last_id_older_than_retention_is_a_gap_event(plane):
    await ensure_stream(plane.js, channel("trades", retention={"max_events": 2}))
    ids = (await post(plane, list(range(5))))["ids"]
    async with listening(plane, ("channel", "trades"), headers=[(b"last-event-id", ids[0].encode())]) as exchange:
        body = await exchange.until(f"id: {ids[4]}\n".encode())
    gap = json.loads(body.split(b"event: gap\ndata: ")[1].split(b"\n")[0])
    assert (gap["channel"], gap["from"], gap["to"], gap["cause"]) == ("trades", ids[0], ids[3], "retention")


async def test_a_last_id_from_the_future_is_live_with_a_notice(plane):
    async with listening(plane, ("channel", "trades"), headers=[(b"last-event-id", b"9000000000000000")]) as exchange:
        assert b'"cause":"recreated"' in await exchange.until(b"event: gap")
        answer = await post(plane, {"a": 1})
        await exchange.until(f"id: {answer['id']}\n".encode())


@pytest.mark.parametrize("last", ["x", "-1", "1-2-3", "99999999999999999999999", "1\r\nx", "1.5", "12 ", "٣"])
async def test_a_last_id_that_cannot_be_one_is_refused(plane, last):
    refused = await refused_events(plane, ("channel", "trades"), ("last_event_id", last))
    assert refused.status == 400
    refused = await refused_events(plane, ("channel", "trades"), ("channel", "news"), ("last_event_id", last))
    assert refused.status == 400


async def test_nothing_that_a_publisher_says_becomes_a_field_of_a_stream(plane):
    named = {"specversion": "1.0", "source": "/s", "data": "1\r\nid: 7\revent: gap\nretry: 1"}
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        for bad in ("a\r\nevent: gap", "a\nid: 7", "a\rb", "a\x00b", "a\u0085b"):
            for attribute in ("id", "type", "subject"):
                event = named | {"id": "1", "type": "gap"} | {attribute: bad}
                with pytest.raises(Refused) as refused:
                    await post(plane, event, content_type=handlers.STRUCTURED)
                assert (refused.value.status, refused.value.members) == (422, {"pointer": f"/{attribute}"})
        answer = await post(plane, named | {"id": "mine", "type": "error"}, content_type=handlers.STRUCTURED)
        await post(plane, {"last": 1})
        body = await exchange.until(b'{"last": 1}')
    lines = body.split(f"id: {answer['id']}\n".encode())[1].split(b"\n\n")[0].split(b"\n")
    assert lines == [b'data: "1\\r\\nid: 7\\revent: gap\\nretry: 1"']


@pytest.mark.parametrize(
    "time",
    [
        "2026-W01-1T00:00:00Z", "20260101T000000Z", "2026-01-01T00:00:00", "2026-01-01", "yesterday",
        "2026-01-01T00:00:00+00:60",
    ],
)  # fmt: skip
async def test_a_time_that_is_no_rfc_3339_instant_is_refused(plane, time):
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": time}
    with pytest.raises(Refused) as refused:
        await post(plane, event, content_type=handlers.STRUCTURED)
    assert (refused.value.status, refused.value.members) == (422, {"pointer": "/time"})


@pytest.mark.parametrize(
    "pairs", [(), (("channel", "nowhere"),), (("channel", "a*b/*"),), (("chanel", "trades"),), (("channel", ""),)]
)
async def test_a_query_that_names_no_channel_is_refused(plane, pairs):
    assert (await refused_events(plane, *pairs)).status in (400, 404)


async def test_draining_ends_the_stream_normally(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        exchange.call.connection.close(Refused(Reason.DRAINING))
        reply = await exchange.serving
        assert exchange.is_ended
        assert b"event: error" not in exchange.body
        assert reply.error_class == "drained"


async def test_a_revoked_key_ends_the_stream_with_an_error_event(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        plane.change_key(revoked_at=1.0)
        await exchange.serving
        assert exchange.is_ended
        assert b'event: error\ndata: {"type":"/docs/refusals#key-revoked"' in exchange.body


async def test_a_right_that_is_lost_ends_the_stream_before_the_next_event(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        plane.change_key(scopes=["publish:*"])
        await post(plane, {"secret": 1})
        await exchange.serving
        assert b"secret" not in exchange.body
        assert b"refusals#forbidden" in exchange.body


async def test_a_right_that_the_tier_loses_ends_a_quiet_stream(plane):
    async with listening(plane, ("channel", "trades")) as exchange:
        await exchange.until(b"retry: ")
        plane.change_tier([], scopes=["publish:*", "subscribe:news"])
        reply = await exchange.serving
        assert b'event: error\ndata: {"type":"/docs/refusals#forbidden"' in exchange.body
        assert reply.error_class == "revoked"


async def test_a_route_to_a_channel_needs_no_other_right(plane):
    plane.change_key(scopes=["call:notifications", "publish:*"])
    plane.snapshot.apply([("route", "notifications", {
        "name": "notifications", "path": "/v1/notifications", "methods": ["GET"], "protocol": "sse",
        "handler": {"type": "channel", "channel": "news"}, "policies": [], "reserved_override": True,
    })])  # fmt: skip
    (route,) = plane.snapshot.routes()
    async with listening(plane, route=route, parameters={"address": "news"}) as exchange:
        await exchange.until(b"retry: ")
        await post(plane, {"a": 1}, "news")
        await exchange.until(b'{"a": 1}')


async def test_events_needs_the_right_to_read(plane):
    plane.change_key(scopes=["subscribe:news"])
    assert (await refused_events(plane, ("channel", "trades"))).reason is Reason.FORBIDDEN
    assert (await refused_events(plane, ("channel", "trades"), ("channel", "news"))).reason is Reason.FORBIDDEN


async def test_a_conflating_stream_sends_the_latest_of_what_came_in_an_interval(plane):
    async with listening(plane, ("channel", "trades"), ("conflate", "300ms")) as stream:
        await stream.until(b"retry")
        ids = [(await post(plane, number))["id"] for number in range(50)]
        text = await stream.until(f"id: {ids[-1]}\n".encode())
    assert text.count(b"data: ") < len(ids)


async def test_a_late_joiner_that_conflates_gets_the_latest_state_of_each_address(plane):
    for number in range(5):
        for sensor in ("a", "b"):
            last = (await post(plane, number, address=f"sensors/{sensor}/t"))["id"]
    query = (("channel", "sensors/{id}/t"), ("from", "earliest"), ("conflate", "300ms"))
    async with listening(plane, *query) as stream:
        text = await stream.until(f"id: {last}\n".encode())
    data = [line for line in text.splitlines() if line.startswith(b"data: ")]
    assert data == [b"data: 0", b"data: 4", b"data: 4"]


async def test_an_interval_that_is_none_is_refused(plane):
    refused = await refused_events(plane, ("channel", "trades"), ("conflate", "often"))
    assert refused.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("has_route", [True, False])
async def test_the_ledger_names_the_requested_channels_with_and_without_a_route(plane, has_route):
    route = {"name": "door", "protocol": "sse", "path": "/v1/events", "methods": ["GET"], "reserved_override": True}
    plane.snapshot.apply([("route", "door", {**route, "handler": {"type": "builtin"}, "policies": []})])
    before = plane.snapshot.route("door") if has_route else None
    async with listening(plane, ("channel", "trades"), ("channel", "news"), route=before) as exchange:
        await exchange.until(b"retry")
        [row] = [usage._opened(connection) for connection in plane.connections]
    assert (row["channel"], row["route"]) == ("news, trades", "door" if has_route else "")


@pytest.mark.parametrize("lookup", ["its position", "its history"])
async def test_a_right_that_is_lost_before_the_stream_begins_is_refused_instead_of_answering_200(
    plane, monkeypatch, lookup
):
    async def losing(*arguments, **options):
        plane.change_key(scopes=["publish:*", "subscribe:news"])
        return await looked_up(*arguments, **options)

    if lookup == "its position":
        looked_up = events.resolve
        monkeypatch.setattr(events, "resolve", losing)
    else:
        looked_up = plane.hub.subscribe_from
        monkeypatch.setattr(plane.hub, "subscribe_from", losing)
    exchange = HttpExchange()
    call = plane.call(Protocol.SSE, peer=exchange, query=b"channel=trades&from=earliest")
    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(handlers.events(plane, call), 5)
    assert refused.value.reason is Reason.FORBIDDEN
    assert exchange.status == 0
