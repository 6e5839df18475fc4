import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.call import Call
from gateway.config import Config
from gateway.contracts import document_cache
from gateway.contracts.document_cache import DocumentCache
from gateway.handlers import contracts
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.tests.event_plane import HttpExchange, channel

LIMITS = [{"metric": "messages_in", "amount": 10, "per": 1}]


class Plane:
    """Has what these handlers use of :class:`gateway.plane.Plane`."""

    def __init__(self, *channels, **settings):
        self.config = Config(
            process="test",
            kind="web",
            data_dir=Path(),
            nats_url="",
            redis_url="",
            key_pepper=b"",
            secret_key=b"",
            **{"public_url": "http://gateway.test:8000", **settings},
        )
        self.snapshot = Snapshot.from_documents(
            {
                "tier": [{"name": "free", "limits": LIMITS}],
                "consumer": [{"name": "acme", "tier": "free"}],
                "channel": channels,
            }
        )
        self.document_cache = DocumentCache(self.config, self.snapshot)
        self.limiter = SimpleNamespace(headers=lambda call: [])

    async def ask(self, *scopes, query=b"", etag=None):
        self.snapshot.apply([("key", "k", {"id": "k", "consumer": "acme", "digest": "", "scopes": scopes})])
        peer = HttpExchange()
        call = Call(protocol=Protocol.HTTP, address="/v1/asyncapi.json", ip="127.0.0.1", query=query, peer=peer)
        call.principal = self.snapshot.principal("k")
        call.headers = [] if etag is None else [(b"if-none-match", etag.encode())]
        await contracts.asyncapi(self, call)
        return peer

    async def document(self, *scopes, **more):
        return json.loads((await self.ask(*scopes, **more)).body)


def addresses(document):
    return [entry["address"] for entry in document["channels"].values()]


async def test_a_key_sees_what_it_may_use_and_nothing_else():
    plane = Plane(channel("trades"), channel("sensors/{id}", title="Sensors"), channel("secret"))
    document = await plane.document("subscribe:trades", "publish:sensors/kitchen")
    assert addresses(document) == ["sensors/{id}", "trades"]
    assert {name: entry["action"] for name, entry in document["operations"].items()} == {
        "send-sensors-id": "send",
        "receive-trades": "receive",
    }
    assert "secret" not in json.dumps(document)
    assert addresses(await plane.document()) == []
    assert len(addresses(await plane.document("*"))) == 3


async def test_it_says_limits_doors_and_schemas_as_they_are_enforced():
    plane = Plane(
        channel("a", schema={"type": "string"}, protocols=["sse", "mqtt"]), channel("b"), mqtt_url="mqtt://m.test:1883"
    )
    document = await plane.document("*")
    assert [(limit["name"], limit["amount"]) for limit in document["x-limits"]] == [("messages_in-per-1s", 10)]
    assert {name: server["protocol"] for name, server in document["servers"].items()} == {
        "http": "http",
        "sse": "sse",
        "websocket": "ws",
        "mqtt": "mqtt",
    }
    assert document["channels"]["a"]["servers"] == [{"$ref": "#/servers/sse"}, {"$ref": "#/servers/mqtt"}]
    assert "servers" not in document["channels"]["b"]
    assert document["components"]["schemas"] == {"a": {"type": "string"}}


async def test_the_name_of_a_schema_in_the_registry_is_not_taken_for_a_schema():
    document = await Plane(channel("a", schema={"subject": "orders"})).document("*")
    assert document["channels"]["a"]["messages"]["event"]["x-schema"] == '{"subject": "orders"}'
    assert document["components"]["schemas"] == {}


async def test_behind_tls_its_servers_are_those_of_tls():
    document = await Plane(public_url="https://api.example", mqtt_url="secure-mqtt://m.example:8883").document("*")
    servers = {name: (server["protocol"], server["host"]) for name, server in document["servers"].items()}
    assert servers["http"] == ("https", "api.example")
    assert servers["websocket"] == ("wss", "api.example")
    assert servers["mqtt"] == ("secure-mqtt", "m.example:8883")


async def test_an_unchanged_document_is_not_sent_again():
    plane = Plane(channel("a"))
    first = await plane.ask("*")
    again = await plane.ask("*", etag=f'"x", W/{first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await plane.ask("subscribe:*", etag=first.headers["etag"])).status == 200
    plane.snapshot.apply([("channel", "b", channel("b"))])
    assert (await plane.ask("*", etag=first.headers["etag"])).status == 200
    plane.snapshot.apply([("channel", "b", None)])
    assert (await plane.ask("*", etag=first.headers["etag"])).status == 304


async def test_a_document_is_written_once_for_all_keys_with_the_same_rights(monkeypatch):
    written = []

    def write(view):
        written.append(view.caller)
        return {}

    monkeypatch.setattr(document_cache, "_BUILDERS", {"asyncapi": write})
    plane = Plane(channel("a"))
    holder = plane.snapshot
    await asyncio.gather(*(plane.ask("*") for _ in range(20)))
    assert len(written) == 1
    holder.apply([("tier", "free", {"name": "free", "limits": []})])
    await plane.ask("*")
    assert len(written) == 2


async def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(document_cache, "CACHE_MAX_BYTES", 4000)
    plane = Plane(channel("a"))
    for number in range(10):
        await plane.ask(f"publish:x/{number}")
    kept = plane.document_cache._documents
    assert 0 < len(kept) < 10
    assert sum(len(written.body) for written in kept.values()) == plane.document_cache._cached_bytes <= 4000


async def test_a_document_that_is_too_large_is_requested_by_channel(monkeypatch):
    monkeypatch.setattr(document_cache, "DOCUMENT_MAX_BYTES", 6000)
    plane = Plane(channel("a", schema={"description": "x" * 3000}), channel("b", schema={"description": "y" * 3000}))
    with pytest.raises(Refused) as refused:
        await plane.ask("*")
    assert refused.value.reason is Reason.TOO_LARGE
    assert addresses(await plane.document("*", query=b"channel=b")) == ["b"]


async def test_a_slow_document_is_refused_in_time_and_cached_for_the_retry(monkeypatch):
    monkeypatch.setattr(document_cache, "WAIT_S", 0.01)
    plane = Plane(channel("a"))
    async with plane.document_cache._building:
        with pytest.raises(Refused) as refused:
            await plane.ask("*")
        assert refused.value.reason is Reason.OVERLOADED
        (task,) = plane.document_cache._pending.values()
    await task
    assert addresses(await plane.document("*")) == ["a"]
    assert not plane.document_cache._pending


async def test_a_change_during_a_build_is_in_the_document_of_the_next_request():
    plane = Plane(channel("a"))
    async with plane.document_cache._building:
        before = asyncio.create_task(plane.document("*"))
        await asyncio.sleep(0)
        plane.snapshot.apply([("channel", "b", channel("b"))])
        after = asyncio.create_task(plane.document("*"))
        await asyncio.sleep(0)
        assert len(plane.document_cache._pending) == 2
    await before
    assert addresses(await after) == ["a", "b"]


async def test_no_more_are_waited_for_than_can_be_written_soon(monkeypatch):
    monkeypatch.setattr(document_cache, "PENDING_MAX", 2)
    plane = Plane(channel("a"))
    async with plane.document_cache._building:
        waiting = [asyncio.create_task(plane.ask(f"publish:{name}")) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await plane.ask("publish:c")
    assert refused.value.reason is Reason.OVERLOADED
    assert [peer.status for peer in await asyncio.gather(*waiting)] == [200, 200]


@pytest.mark.parametrize("query", [b"chanel=a", b"channel=%ff", b"&".join([b"channel=a"] * 51)])
async def test_a_query_that_would_be_ignored_is_refused(query):
    with pytest.raises(Refused) as refused:
        await Plane().ask("*", query=query)
    assert refused.value.reason is Reason.INVALID_REQUEST


async def test_the_types_of_jobs_are_read_again_and_no_document_without_them_is_kept(monkeypatch):
    plane = Plane()
    answers = [Refused(Reason.OVERLOADED), {"a": {"type": "object"}}, {"a": {"type": "array"}}]

    async def input_schemas():
        answer = answers.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer

    plane.document_cache = DocumentCache(plane.config, plane.snapshot, input_schemas)

    async def schemas():
        document = await plane.document_cache.document("openapi", Principal("acme", "k", "free", scopes=("*",)))
        return json.loads(document.body)["components"]["schemas"].get("a-input")

    assert await schemas() is None, "the control plane cannot be reached"
    assert [await schemas() for _ in range(2)] == [{"type": "object"}] * 2
    later = time.monotonic() + document_cache.KEPT_S + 1
    monkeypatch.setattr(document_cache.time, "monotonic", lambda: later)
    assert [await schemas() for _ in range(2)] == [{"type": "array"}] * 2
    assert len(plane.document_cache._documents) == 1
