import asyncio
import json
from urllib.parse import urlencode

import pytest

from gateway.handlers import channel as handlers
from gateway.log.streams import ensure_stream
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import CHANNELS, HttpExchange, channel, running


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


async def get(plane, address="trades", **query):
    exchange = HttpExchange()
    call = plane.call(
        peer=exchange,
        address=f"/v1/channels/{address}/events",
        parameters={"address": address},
        query=urlencode(query).encode(),
    )
    await handlers.history(plane, call)
    assert exchange.is_ended
    return exchange.parsed


# Publishing over REST


async def test_one_event_gives_its_id_and_history_has_it(plane):
    shown = await post(plane, {"price": 1})
    results = (await get(plane))["results"]
    assert [(event["id"], event["data"], event["type"]) for event in results] == [(shown["id"], {"price": 1}, "event")]


@pytest.mark.parametrize(
    ("address", "body", "headers", "members"),
    [
        ("text", b"[1]", {}, {"data": "[1]", "content_type": "text/plain"}),
        ("text", b"a;b", {"content_type": "text/csv"}, {"data": "a;b", "content_type": "text/csv"}),
        ("bytes", b"\xff", {}, {"data_base64": "/w==", "content_type": "application/octet-stream"}),
        ("bytes", b'{"a":1}', {"content_type": "application/json; charset=utf-8"}, {"data": {"a": 1}}),
        ("photos", b"\xff", {"content_type": "image/jpeg"}, {"data_base64": "/w==", "content_type": "image/jpeg"}),
        ("photos", b"\xff", {"content_type": "application/x-www-form-urlencoded"}, {"data_base64": "/w=="}),
        (
            "photos",
            b'{"specversion": "1.0", "id": "1", "source": "/a", "type": "b", "data_base64": "/w=="}',
            {"content_type": "application/cloudevents+json"},
            {"data_base64": "/w==", "content_type": "image/jpeg"},
        ),
        (
            "bytes",
            b'{"specversion":"1.0","id":"1","source":"/a","type":"b","data":"<a/>","datacontenttype":"application/xml"}',
            {"content_type": "application/cloudevents+json"},
            {"data_base64": "PGEvPg==", "content_type": "application/xml"},
        ),
    ],
)
async def test_an_event_of_every_type_is_in_the_history_as_it_was(plane, address, body, headers, members):
    id_ = (await post(plane, body, address, **headers))["id"]
    (event,) = (await get(plane, address))["results"]
    assert (event["id"], event | members) == (id_, event)


@pytest.mark.parametrize("body", [b"[]", b" [ ] "])
async def test_a_batch_of_cloudevents_may_be_empty(plane, body):
    assert await post(plane, body, content_type="application/cloudevents-batch+json") == {"ids": []}
    with pytest.raises(Refused):
        await post(plane, body, "nowhere", content_type="application/cloudevents-batch+json")


async def test_a_batch_of_another_type_is_refused_with_what_is_taken(plane):
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": "b"}
    with pytest.raises(Refused) as refused:
        await post(plane, [event | {"data": 1}], "photos", content_type="application/cloudevents-batch+json")
    assert (refused.value.status, refused.value.headers) == (415, ((b"accept", b"image/jpeg"),))
    assert refused.value.members == {"pointer": "/0"}


@pytest.mark.parametrize("address", ["text", "photos"])
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_an_array_of_json_is_refused_where_json_is_not_taken(plane, address, content_type):
    with pytest.raises(Refused) as refused:
        await post(plane, b'["a", "b"]', address, content_type=content_type)
    assert (refused.value.status, refused.value.members) == (415, {"pointer": "/0"})


async def test_an_array_of_json_is_json_on_a_channel_of_bytes(plane):
    await post(plane, b'["a", {"n": 1.50}]', "bytes", content_type="application/json")
    results = (await get(plane, "bytes"))["results"]
    assert [(event["data"], "content_type" in event) for event in results] == [("a", False), ({"n": 1.5}, False)]


async def test_an_array_gives_ids_and_keeps_each_elements_own_text(plane):
    shown = await post(plane, b' [ {"n": 1.50}, [1, 2] ,"a,]", 123456789012345678901234567890 ] ')
    results = (await get(plane))["results"]
    assert [event["id"] for event in results] == shown["ids"]
    trades, _ = plane.snapshot.channel("trades")
    stored = [event.data for event in await plane.log.history(trades, "trades", 0, 10)]
    assert stored == [b'{"n": 1.50}', b"[1, 2]", b'"a,]"', b"123456789012345678901234567890"]


async def test_a_structured_cloudevent_is_unwrapped(plane):
    event = {"specversion": "1.0", "id": "x1", "source": "/s", "type": "made", "data": {"a": 1}, "partitionkey": "p"}
    await post(plane, event, content_type="application/cloudevents+json")
    (stored,) = await plane.log.history(plane.snapshot.channel("trades")[0], "trades", 0, 10)
    assert (stored.data, stored.published_id, stored.source, stored.type) == (b'{"a":1}', "x1", "/s", "made")
    assert stored.extensions == {"partitionkey": "p"}


async def test_a_binary_cloudevent_may_be_an_array(plane):
    ce = {"ce_specversion": "1.0", "ce_id": "x1", "ce_source": "/s", "ce_type": "made%20here"}
    shown = await post(plane, [1, 2], content_type="application/json", **ce)
    assert shown.keys() == {"id"}
    (stored,) = await plane.log.history(plane.snapshot.channel("trades")[0], "trades", 0, 10)
    assert (stored.data, stored.published_id, stored.type) == (b"[1, 2]", "x1", "made here")


async def test_a_batch_of_cloudevents_gives_ids(plane):
    event = {"specversion": "1.0", "source": "/s", "type": "made", "data": 1}
    shown = await post(
        plane, [{**event, "id": "a"}, {**event, "id": "b"}], content_type="application/cloudevents-batch+json"
    )
    assert len(shown["ids"]) == 2


async def test_an_idempotency_key_counts_the_same_quoted_or_bare(plane):
    first = await post(plane, {"a": 1}, idempotency_key='"k1"')
    assert await post(plane, {"a": 1}, idempotency_key="k1") == first
    with pytest.raises(Refused) as refused:
        await post(plane, {"a": 2}, idempotency_key="k1")
    assert refused.value.status == 422


async def test_a_repeated_array_gives_the_same_ids(plane):
    first = await post(plane, [1, 2, 3], idempotency_key="k2")
    assert await post(plane, [1, 2, 3], idempotency_key="k2") == first
    assert len((await get(plane))["results"]) == 3


@pytest.mark.parametrize(
    ("body", "headers", "pointer"),
    [
        (b"", {}, ""),
        (b"{", {}, ""),
        (b"[]", {}, ""),
        (b"[1,]", {}, "/1"),
        (json.dumps([1] * 1001).encode(), {}, ""),
        (b"{}", {"content_type": "application/cloudevents+json"}, "/specversion"),
        (b"[]", {"content_type": "application/cloudevents+json"}, ""),
        (b'{"specversion":"1.0","id":"a"}', {"content_type": "application/cloudevents+json"}, "/source"),
        (b"{}", {"content_type": "application/cloudevents-batch+json"}, ""),
        (b"[{}]", {"content_type": "application/cloudevents-batch+json"}, "/0/specversion"),
        (b"{}", {"ce_id": "a"}, "/specversion"),
        (b"{}", {"ce_specversion": "1.0", "ce_id": "a"}, "/source"),
    ],
)
async def test_a_body_that_is_no_event_is_refused_with_its_pointer(plane, body, headers, pointer):
    with pytest.raises(Refused) as refused:
        await post(plane, body, **headers)
    assert (refused.value.reason, refused.value.members) == (Reason.INVALID_PAYLOAD, {"pointer": pointer})
    assert (await get(plane))["results"] == []


@pytest.mark.parametrize("key", ["", '""', "k" * 300])
async def test_an_idempotency_key_is_bounded(plane, key):
    with pytest.raises(Refused) as refused:
        await post(plane, {"a": 1}, idempotency_key=key)
    assert refused.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("query", [b"dry_run=true", b"limit=1", b"x"])
async def test_a_publish_has_no_query_parameters(plane, query):
    call = plane.call(peer=HttpExchange(b"1"), method="POST", parameters={"address": "trades"}, query=query, headers=[])
    with pytest.raises(Refused) as refused:
        await handlers.publish_events(plane, call)
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert (await get(plane))["results"] == []


# History


async def test_history_is_paged_to_its_end(plane):
    ids = (await post(plane, list(range(5))))["ids"]
    first = await get(plane, limit="2")
    assert [event["id"] for event in first["results"]] == ids[:2]
    assert first["next"] == f"http://gateway.test/v1/channels/trades/events?after={ids[1]}&limit=2"
    rest = await get(plane, after=ids[1], limit="3")
    assert ([event["id"] for event in rest["results"]], rest["next"]) == (ids[2:], None)
    assert await get(plane, after=ids[4]) == {"results": [], "next": None}


async def test_history_older_than_retention_is_gone_and_names_the_oldest(plane):
    await ensure_stream(plane.js, channel("trades", retention={"max_events": 2}))
    ids = (await post(plane, list(range(5))))["ids"]
    with pytest.raises(Refused) as refused:
        await get(plane, after=ids[0])
    assert (refused.value.status, refused.value.members) == (410, {"oldest": ids[3]})
    assert [event["id"] for event in (await get(plane))["results"]] == ids[3:]
    assert [event["id"] for event in (await get(plane, after=ids[2]))["results"]] == ids[3:]


@pytest.mark.parametrize(
    "query",
    [
        {"after": "x"},
        {"after": "latest"},
        {"after": "-1"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"x": "1"},
    ],
)
async def test_a_history_query_that_cannot_be_meant_is_refused(plane, query):
    with pytest.raises(Refused) as refused:
        await get(plane, **query)
    assert refused.value.reason is Reason.INVALID_REQUEST


async def test_history_needs_the_right_to_read(plane):
    plane.change_key(scopes=["publish:*"])
    with pytest.raises(Refused) as refused:
        await get(plane)
    assert refused.value.reason is Reason.FORBIDDEN


@pytest.mark.parametrize("other", [[1], [1, 2, 3], [2, 1], [9, 2], [9, 2, 3], 1, [[1], 2]])
async def test_a_key_of_an_array_takes_no_other_body_and_stores_nothing_of_it(plane, other):
    key = {"idempotency_key": "one"}
    ids = (await post(plane, [1, 2], **key))["ids"]
    with pytest.raises(Refused) as refused:
        await post(plane, other, **key)
    assert (refused.value.status, refused.value.cause) == (422, "idempotency-key-reused")
    assert (await post(plane, [1, 2], **key))["ids"] == ids
    assert [event["id"] for event in (await get(plane))["results"]] == ids


async def test_a_key_of_one_event_takes_no_array(plane):
    await post(plane, 1, idempotency_key="one")
    with pytest.raises(Refused) as refused:
        await post(plane, [1], idempotency_key="one")
    assert refused.value.cause == "idempotency-key-reused"


async def test_concurrent_repeats_of_an_array_are_stored_once(plane):
    answers = await asyncio.gather(*(post(plane, [1, 2, 3], idempotency_key="one") for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert [event["id"] for event in (await get(plane))["results"]] == answers[0]["ids"]


async def test_history_is_limited_as_deliveries_are_and_says_where_it_goes_on(plane):
    ids = (await post(plane, [1, 2, 3, 4, 5]))["ids"]
    plane.change_tier([{"metric": "messages_out", "amount": 3, "per": 3600}])
    shown = await get(plane)
    assert [event["id"] for event in shown["results"]] == ids[:3]
    assert shown["next"].endswith(f"?after={ids[2]}&limit=100")
    with pytest.raises(Refused) as refused:
        await get(plane, after=ids[2])
    assert refused.value.reason is Reason.RATE_LIMITED
    assert refused.value.retry_after_s > 0
