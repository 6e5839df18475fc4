"""Every address of the data plane, called with four keys of one consumer: what one key made is not another's.

``nothing`` has no scope, ``other`` has scopes for other names, ``right`` has the scope that the address needs, and
``maker`` made the subscription and the job and has since lost its scopes.
"""

import asyncio
import json

import orjson
import pytest
from asgiref.sync import sync_to_async

from audit.tests.conftest import link, nats_server, until  # noqa: F401 - fixtures
from consumers.models import Consumer
from events import registry, subscriptions
from events.models import Subscription
from events.registry_rest import ROUTES
from events.registry_schemas import parse_submitted
from events.services import create_channel
from events.tests.whole import running_whole
from gateway.asgi import serve
from gateway.link.nats import JOBS_BUCKET
from gateway.protocol import Protocol
from gateway.snapshot.endpoints import CHANNEL_EVENTS, ENDPOINTS
from keys.services import issue_key, update_key

pytestmark = [pytest.mark.django_db(transaction=True)]

OTHER = ["subscribe:sensors/*", "publish:sensors/*", "jobs:others", "call:others"]
RIGHT = ["subscribe:trades", "publish:trades", "jobs:reports", "publish:trades-value"]
KEYS = ("nothing", "other", "right", "maker")
SUBSCRIPTION, JOB = "sub_" + "a" * 24, "job_" + "b" * 24
SCHEMA = {"schema": '{"type": "object"}', "schemaType": "JSON"}
IDS = {"ids": ["1"]}
HUNG_S = 20
TABLE = [
    # Answers to the keys nothing, other, right and maker.
    ("GET", "/v1/events?channel=trades", None, (403, 403, 200, 403)),
    ("POST", "/v1/tickets", None, (403, 201, 201, 403)),
    ("GET", "/v1/me", None, (200, 200, 200, 200)),
    ("GET", "/v1/asyncapi.json", None, (200, 200, 200, 200)),
    ("GET", "/v1/openapi.json", None, (200, 200, 200, 200)),
    ("POST", "/v1/channels/trades/events", {}, (403, 403, 201, 403)),
    ("GET", "/v1/channels/trades/events", None, (403, 403, 200, 403)),
    ("POST", "/v1/jobs/reports", {}, (403, 403, 202, 403)),
    ("GET", "/v1/jobs/{job}", None, (404, 404, 200, 200)),
    ("DELETE", "/v1/jobs/{job}", None, (404, 404, 200, 200)),
    ("GET", "/v1/jobs/{job}/result", None, (403, 403, 403, 403)),
    ("GET", "/v1/jobs/{job}/events", None, (404, 404, 200, 200)),
    ("GET", "/v1/subscriptions", None, (200, 200, 200, 200)),
    ("POST", "/v1/subscriptions", {"type": "pull", "channel": "trades"}, (403, 403, 201, 403)),
    ("GET", "/v1/subscriptions/{sub}", None, (404, 404, 200, 200)),
    ("PATCH", "/v1/subscriptions/{sub}", {"state": "paused"}, (404, 404, 200, 403)),
    ("DELETE", "/v1/subscriptions/{sub}", None, (404, 404, 204, 204)),
    ("POST", "/v1/subscriptions/{sub}/rotate", {}, (404, 404, 201, 403)),
    ("GET", "/v1/subscriptions/{sub}/attempts", None, (404, 404, 200, 200)),
    ("GET", "/v1/subscriptions/{sub}/events", None, (404, 404, 200, 403)),
    ("POST", "/v1/subscriptions/{sub}/ack", IDS, (404, 404, 200, 403)),
    ("POST", "/v1/subscriptions/{sub}/nack", IDS, (404, 404, 200, 403)),
    ("POST", "/v1/subscriptions/{sub}/extend", IDS, (404, 404, 200, 403)),
    ("GET", "/registry", None, (200, 200, 200, 200)),
    ("GET", "/registry/contexts", None, (200, 200, 200, 200)),
    ("GET", "/registry/subjects", None, (200, 200, 200, 200)),
    ("POST", "/registry/subjects/trades-value", SCHEMA, (403, 403, 200, 403)),
    ("GET", "/registry/subjects/trades-value/metadata", None, (403, 403, 200, 403)),
    ("GET", "/registry/subjects/trades-value/versions", None, (403, 403, 200, 403)),
    ("POST", "/registry/subjects/trades-value/versions", SCHEMA, (403, 403, 200, 403)),
    ("GET", "/registry/subjects/trades-value/versions/1", None, (403, 403, 200, 403)),
    ("GET", "/registry/subjects/trades-value/versions/1/schema", None, (403, 403, 200, 403)),
    ("GET", "/registry/subjects/trades-value/versions/1/referencedby", None, (403, 403, 200, 403)),
    ("GET", "/registry/schemas", None, (200, 200, 200, 200)),
    ("GET", "/registry/schemas/types", None, (200, 200, 200, 200)),
    ("GET", "/registry/schemas/ids/{schema}", None, (404, 404, 200, 404)),
    ("GET", "/registry/schemas/ids/{schema}/schema", None, (404, 404, 200, 404)),
    ("GET", "/registry/schemas/ids/{schema}/subjects", None, (404, 404, 200, 404)),
    ("GET", "/registry/schemas/ids/{schema}/versions", None, (404, 404, 200, 404)),
    ("GET", "/registry/schemas/guids/{guid}", None, (404, 404, 200, 404)),
    ("POST", "/registry/compatibility/subjects/trades-value/versions", SCHEMA, (403, 403, 200, 403)),
    ("POST", "/registry/compatibility/subjects/trades-value/versions/latest", SCHEMA, (403, 403, 200, 403)),
    ("GET", "/registry/config", None, (403, 403, 403, 403)),
    ("PUT", "/registry/config", {"compatibility": "NONE"}, (403, 403, 403, 403)),
    ("DELETE", "/registry/config", None, (403, 403, 403, 403)),
    ("PUT", "/registry/config/*", {"compatibility": "NONE"}, (403, 403, 403, 403)),
    ("PUT", "/registry/config/trades-value", {"compatibility": "FULL"}, (403, 403, 200, 403)),
    ("GET", "/registry/config/trades-value", None, (403, 403, 200, 403)),
    ("DELETE", "/registry/config/trades-value", None, (403, 403, 200, 403)),
    ("GET", "/registry/mode", None, (403, 403, 403, 403)),
    ("PUT", "/registry/mode", {"mode": "READONLY"}, (403, 403, 403, 403)),
    ("PUT", "/registry/mode/%2A", {"mode": "READONLY"}, (403, 403, 403, 403)),
    ("PUT", "/registry/mode/trades-value", {"mode": "READWRITE"}, (403, 403, 200, 403)),
    ("GET", "/registry/mode/trades-value", None, (403, 403, 200, 403)),
    ("DELETE", "/registry/mode/trades-value", None, (403, 403, 200, 403)),
    ("DELETE", "/registry/subjects/trades-value/versions/1", None, (403, 403, 200, 403)),
    ("DELETE", "/registry/subjects/trades-value", None, (403, 403, 404, 403)),
]


class Consumers:
    """Two planes with the four keys, and what the maker has made."""

    def __init__(self, whole, keys, schema):
        self.whole = whole
        self.keys = keys
        self.schema = schema

    async def answer(self, method, path, body, key):
        """Make one request and return its status and body; of an event stream, only what begins it."""
        path = path.format(job=JOB, sub=SUBSCRIPTION, schema=self.schema.schema_id, guid=self.schema.schema.digest[:32])
        path, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(b"x-api-key", key.encode()), (b"content-length", str(len(data)).encode())],
            "client": ("127.0.0.1", 1), "extensions": {},
        }  # fmt: skip
        received, sent = asyncio.Queue(), []
        received.put_nowait({"type": "http.request", "body": data, "more_body": False})

        async def send(message):
            sent.append(message)
            if dict(message.get("headers", ())).get(b"content-type", b"").startswith(b"text/event-stream"):
                received.put_nowait({"type": "http.disconnect"})

        async with asyncio.timeout(HUNG_S):
            await serve(self.whole.plane, scope, received.get, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    async def make(self):
        """Make the subscription and the job of the maker anew."""
        snapshot = self.whole.plane.snapshot
        await sync_to_async(self._unsubscribe)()
        await until(lambda: asyncio.sleep(0, snapshot.subscription(SUBSCRIPTION) is None))
        await sync_to_async(self._subscribe)()
        await until(lambda: asyncio.sleep(0, snapshot.subscription(SUBSCRIPTION)))
        bucket = await self.whole.link[1].key_value(JOBS_BUCKET)
        await bucket.put("type.reports", orjson.dumps({"name": "reports", "schema": {}}))
        job = {"id": JOB, "type": "reports", "consumer": "acme", "key": self.keys["maker"][0].id, "state": "completed"}
        job |= {"progress": 1, "message": "", "result": "secret", "maker": self.keys["maker"][0].id}
        await bucket.put(JOB, orjson.dumps(job))

    def _unsubscribe(self):
        for row in Subscription.objects.filter(id=SUBSCRIPTION):
            subscriptions.delete_subscription(row, by="test")

    def _subscribe(self):
        subscriptions.create_subscription(
            consumer=Consumer.objects.get(name="acme"), key=self.keys["maker"][0].id, id=SUBSCRIPTION, type="pull",
            channel="trades", position=0, alert_url="https://93.184.216.34/hidden", alert_lag_events=5, by="test",
        )  # fmt: skip


def issue_keys():
    acme = Consumer.objects.get(name="acme")
    keys = {
        name: issue_key(consumer=acme, scopes=scopes, by="test")
        for name, scopes in zip(KEYS, ([], OTHER, RIGHT, RIGHT), strict=True)
    }
    update_key(keys["maker"][0], scopes=[], by="test")
    return keys


@pytest.fixture
async def consumers(link, nats_server, redis_url, tmp_path):  # noqa: F811
    async with running_whole(link, nats_server.url, redis_url, tmp_path) as whole:
        keys = await sync_to_async(issue_keys)()
        schema = await sync_to_async(registry.register)("trades-value", parse_submitted(SCHEMA), by="test")
        snapshot = whole.plane.snapshot
        await until(lambda: asyncio.sleep(0, all(snapshot.key(key.id) for key, _ in keys.values())))
        await until(lambda: asyncio.sleep(0, not snapshot.key(keys["maker"][0].id).scopes))
        yield Consumers(whole, keys, schema)


async def test_each_address_serves_those_who_have_its_right_and_the_maker(consumers):
    await consumers.make()
    found = []
    for method, path, body, _ in TABLE:
        statuses = []
        for name in KEYS:
            if "{job}" in path or "{sub}" in path:
                await consumers.make()
            statuses.append((await consumers.answer(method, path, body, consumers.keys[name][1]))[0])
        found.append((method, path, body, tuple(statuses)))
    assert found == TABLE


async def test_lists_show_what_the_caller_may_use_and_nothing_of_the_rest(consumers):
    await consumers.make()
    hidden = (b"sub_", b"hidden", b"trades", b"secret", b'"object')
    lists = ("/v1/subscriptions", "/registry/subjects", "/registry/schemas", "/registry/subjects?deleted=true")
    for path in lists:
        for name in ("nothing", "other"):
            _, body = await consumers.answer("GET", path, None, consumers.keys[name][1])
            assert not any(text in body for text in hidden), (path, name, body)
        _, body = await consumers.answer("GET", path, None, consumers.keys["right"][1])
        assert any(text in body for text in hidden), path
    assert SUBSCRIPTION.encode() in (await consumers.answer("GET", lists[0], None, consumers.keys["maker"][1]))[1]


async def test_what_may_not_be_used_looks_like_what_does_not_exist(consumers):
    await consumers.make()
    key = consumers.keys["other"][1]
    for method, path, body, _ in TABLE:
        if "{job}" in path or "{sub}" in path or "{schema}" in path:
            there = await consumers.answer(method, path, body, key)
            absent = path.replace("{job}", JOB[:-1] + "c").replace("{sub}", SUBSCRIPTION[:-1] + "b")
            nowhere = await consumers.answer(method, absent.replace("{schema}", "99999"), body, key)
            assert there[0] == nowhere[0]
            named = f"Schema {consumers.schema.schema_id} "
            assert there[1].replace(named.encode(), b"Schema 99999 ") == nowhere[1]


async def test_an_idempotency_key_of_another_key_reveals_no_subscription(consumers):
    whole = consumers.whole
    whole.keys |= {name: text for name, (_, text) in consumers.keys.items()}
    headers = ((b"idempotency-key", b"same"),)
    body = {"type": "webhook", "channel": "trades", "url": "https://93.184.216.34/x"}
    _, made = await whole.call("POST", "/v1/subscriptions", body, by="right", headers=headers)
    body |= {"channel": "sensors/1/reading"}
    status, own = await whole.call("POST", "/v1/subscriptions", body, by="other", headers=headers)
    assert (status, own["channel"]) == (201, "sensors/1/reading")
    assert own["id"] != made["id"]


async def test_a_subject_is_readable_with_the_right_to_a_channel_that_it_is_the_schema_of(consumers):
    await sync_to_async(create_channel)(address="quotes/{id}", schema={"subject": "trades-value"}, by="test")
    acme = await Consumer.objects.aget(name="acme")
    row, text = await sync_to_async(issue_key)(consumer=acme, scopes=["subscribe:quotes/7"], by="test")
    await until(lambda: asyncio.sleep(0, consumers.whole.plane.snapshot.key(row.id)))
    assert (await consumers.answer("GET", "/registry/subjects", None, text))[1] == b'["trades-value"]'
    assert (await consumers.answer("GET", "/registry/schemas/ids/{schema}", None, text))[0] == 200
    assert (await consumers.answer("POST", "/registry/subjects/trades-value/versions", SCHEMA, text))[0] == 403


async def test_a_reference_to_a_subject_that_may_not_be_read_is_one_to_nothing(consumers):
    acme = await Consumer.objects.aget(name="acme")
    row, text = await sync_to_async(issue_key)(consumer=acme, scopes=["publish:mine"], by="test")
    await until(lambda: asyncio.sleep(0, consumers.whole.plane.snapshot.key(row.id)))
    answers = []
    for subject in ("trades-value", "nobody-value"):
        body = SCHEMA | {"references": [{"name": "a", "subject": subject, "version": 1}]}
        status, answer = await consumers.answer("POST", "/registry/subjects/mine/versions", body, text)
        answers.append((status, answer.replace(subject.encode(), b"")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422


async def test_the_events_of_a_job_end_when_the_right_to_it_is_lost(consumers):
    await consumers.make()
    bucket = await consumers.whole.link[1].key_value(JOBS_BUCKET)
    job = orjson.loads((await bucket.get(JOB)).value) | {"state": "running", "result": None}
    await bucket.put(JOB, orjson.dumps(job))
    plane, row = consumers.whole.plane, consumers.keys["right"][0]
    path = f"/v1/jobs/{JOB}/events"
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"x-api-key", consumers.keys["right"][1].encode())],
        "client": ("127.0.0.1", 1), "extensions": {},
    }  # fmt: skip
    received, sent = asyncio.Queue(), []
    received.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def send(message):
        sent.append(message)

    stream = asyncio.create_task(serve(plane, scope, received.get, send))
    await until(lambda: asyncio.sleep(0, len(plane.connections)))
    await sync_to_async(update_key)(row, scopes=["subscribe:trades"], by="test")
    await asyncio.wait_for(stream, HUNG_S)
    assert b"forbidden" in sent[-1]["body"]


def test_every_address_is_in_the_table():
    in_table = {(method, path.partition("?")[0]) for method, path, _, _ in TABLE}
    names = {"{type}": "reports", "{address}": "trades"}
    for endpoint in ENDPOINTS:
        if endpoint.protocol is not Protocol.WEBSOCKET:
            path = endpoint.path.replace("{id}", "{job}" if "/jobs/" in endpoint.path else "{sub}")
            for template, name in names.items():
                path = path.replace(template, name)
            assert (endpoint.method, path) in in_table
    assert {(one.method, "/v1/channels/trades/events") for one in CHANNEL_EVENTS} <= in_table
    for method, template, _, _ in ROUTES:
        parts = [part for path_method, path in in_table if path_method == method for part in [path.split("/")[2:]]]
        assert any(
            len(part) == len(template) and all(a in ("*", b) for a, b in zip(template, part, strict=True))
            for part in parts
            if part or not template
        ), (method, template)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/subscriptions?state=banana"),
        ("GET", "/v1/subscriptions?type="),
        ("DELETE", "/v1/subscriptions/{sub}?dry_run=true"),
        ("DELETE", "/v1/jobs/{job}?dry_run=true"),
        ("GET", "/v1/subscriptions/{sub}/attempts?limit="),
        ("GET", "/v1/channels/trades/events?limit=5&limit=6"),
        ("GET", "/v1/events?channel=trades&from="),
        ("GET", "/v1/me?would="),
        ("DELETE", "/registry/subjects/trades-value?permanent=yes"),
        ("DELETE", "/registry/subjects/trades-value?permanent="),
    ],
)
async def test_bad_parameters_are_refused_by_name_and_nothing_is_done(consumers, method, path):
    await consumers.make()
    status, body = await consumers.answer(method, path, None, consumers.keys["right"][1])
    name = path.rpartition("=")[0].rpartition("?")[2].rpartition("&")[2]
    assert (status, name in body.decode()) == (400, True), body
    assert consumers.whole.plane.snapshot.subscription(SUBSCRIPTION) is not None
