"""The schema registry from outside: Confluent's own client, and each answer of the REST API."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from audit.tests.conftest import until
from consumers.models import Consumer
from events import registry
from events.models import Channel, DeadLetter
from events.services import create_channel, update_channel
from events.tests.whole import running_whole
from gateway.asgi import serve
from keys.services import issue_key

pytestmark = pytest.mark.django_db(transaction=True)

USER = {
    "type": "record", "name": "User", "namespace": "shop",
    "fields": [{"name": "name", "type": "string"}, {"name": "age", "type": "int", "default": 0}],
}  # fmt: skip
ORDER = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": False}


@pytest.fixture
async def whole(link, nats_server, redis_url, tmp_path):
    async with running_whole(link, nats_server.url, redis_url, tmp_path) as found:
        yield found


async def ask(whole, method, path, body=None, **more):
    return await whole.call(method, f"/registry{path}", body, **more)


def avro(**changes):
    return {"schema": json.dumps(USER | changes)}


def json_schema(**changes):
    return {"schema": json.dumps(ORDER | changes), "schemaType": "JSON"}


async def register(whole, subject, body, **more):
    return await ask(whole, "POST", f"/subjects/{subject}/versions", body, **more)


# Confluent's client, unchanged


@asynccontextmanager
async def served(plane):
    """Serve the plane on a port; gives the registry's URL."""

    async def application(scope, receive, send):
        await serve(plane, scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_level="error"))
    task = asyncio.create_task(server.serve())
    await until(lambda: asyncio.sleep(0, server.started))
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/registry"
    server.should_exit = True
    await task


def with_the_client(url, key):
    """Do with the client what producers and deployments do."""
    with SchemaRegistryClient({"url": url, "basic.auth.user.info": f"any:{key}"}) as client:
        register_and_read(client)
        serialize(client)


def with_a_wrong_key(url):
    with SchemaRegistryClient({"url": url, "basic.auth.user.info": "any:apim_wrong", "max.retries": 0}) as client:
        with pytest.raises(SchemaRegistryError) as refused:
            client.get_subjects()
        assert (refused.value.http_status_code, refused.value.error_code) == (401, 40101)
        assert "Authorization" in refused.value.error_message


def register_and_read(client):
    first = Schema(json.dumps(USER), "AVRO")
    id_ = client.register_schema("users-value", first)
    assert client.register_schema("users-value", first) == id_
    assert json.loads(client.get_schema(id_).schema_str) == USER
    wider = {**USER, "fields": [*USER["fields"], {"name": "mail", "type": "string", "default": ""}]}
    assert client.test_compatibility("users-value", Schema(json.dumps(wider), "AVRO")) is True
    second = client.register_schema("users-value", Schema(json.dumps(wider), "AVRO"))
    assert client.get_versions("users-value") == [1, 2]
    assert client.get_latest_version("users-value").schema_id == second
    assert client.get_version("users-value", 1).schema_id == id_
    assert client.lookup_schema("users-value", first).version == 1
    broken = {**USER, "fields": [*USER["fields"], {"name": "must", "type": "string"}]}
    assert client.test_compatibility("users-value", Schema(json.dumps(broken), "AVRO")) is False
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema("users-value", Schema(json.dumps(broken), "AVRO"))
    assert (refused.value.http_status_code, refused.value.error_code) == (409, 409)
    client.set_compatibility("users-value", "NONE")
    assert client.get_compatibility("users-value") == "NONE"
    assert client.register_schema("users-value", Schema(json.dumps(broken), "AVRO")) not in (id_, second)
    client.register_schema("person", Schema(json.dumps({"type": "object"}), "JSON"))
    referring = Schema('{"$ref": "person.json"}', "JSON", [SchemaReference("person.json", "person", 1)])
    found = client.get_schema(client.register_schema("crew", referring))
    assert found.references[0].subject == "person"
    assert client.get_subjects() == ["crew", "person", "users-value"]
    assert client.delete_subject("crew") == [1]
    assert client.delete_subject("crew", permanent=True) == [1]


def serialize(client):
    context = SerializationContext("clicks", MessageField.VALUE)
    written = AvroSerializer(client, json.dumps(USER))({"name": "Ann", "age": 3}, context)
    assert AvroDeserializer(client)(written, context) == {"name": "Ann", "age": 3}
    titled = json.dumps({"title": "Order", **ORDER})
    JSONSerializer(titled, client)({"id": 1}, SerializationContext("orders", MessageField.VALUE))
    assert {"clicks-value", "orders-value"} <= set(client.get_subjects())


async def test_confluents_client_works_unchanged(whole):
    async with served(whole.plane) as url:
        await asyncio.to_thread(with_the_client, url, whole.keys["acme"])
        await asyncio.to_thread(with_a_wrong_key, url)


# The REST API


async def test_versions_follow_each_other_and_a_schema_has_one_id_everywhere(whole):
    _, first = await register(whole, "a", json_schema())
    _, second = await register(whole, "a", json_schema(title="Two"))
    _, elsewhere = await register(whole, "b", json_schema())
    assert (first["version"], second["version"], elsewhere["version"]) == (1, 2, 1)
    assert first["id"] == elsewhere["id"] != second["id"]
    status, answer = await ask(whole, "GET", "/subjects/a/versions/latest")
    assert (status, answer["version"], answer["schemaType"], json.loads(answer["schema"])["title"]) == (
        200,
        2,
        "JSON",
        "Two",
    )
    assert await ask(whole, "GET", f"/schemas/ids/{first['id']}/versions") == (
        200, [{"subject": "a", "version": 1}, {"subject": "b", "version": 1}],
    )  # fmt: skip
    assert await ask(whole, "GET", "/subjects?subjectPrefix=b") == (200, ["b"])
    assert await ask(whole, "GET", "/schemas/types") == (200, ["JSON", "AVRO"])


async def test_a_subject_may_hold_a_slash(whole):
    assert (await register(whole, "orders%2Feu", json_schema()))[0] == 200
    assert await ask(whole, "GET", "/subjects") == (200, ["orders/eu"])


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/subjects/nobody/versions", None, 40401),
        ("GET", "/subjects/a/versions/9", None, 40402),
        ("GET", "/subjects/a/versions/nine", None, 42202),
        ("GET", "/schemas/ids/999", None, 40403),
        ("GET", "/schemas/ids/x", None, 40403),
        ("POST", "/subjects/a", json_schema(title="unknown"), 40403),
        ("POST", "/subjects/a/versions", {"schema": "{", "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": '{"type": "nothing"}'}, 42201),
        ("POST", "/subjects/a/versions", {"schema": '{"$ref": "http://127.0.0.1/x"}', "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": '{"pattern": "(?=x)"}', "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": "message A {}", "schemaType": "PROTOBUF"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": " " * 300_000, "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/a/versions", json_schema() | {"references": [{"name": "n"}]}, 42201),
        ("POST", "/subjects/a/versions", [], 42201),
        ("POST", "/subjects/*/versions", json_schema(), 40301),
        ("PUT", "/config/a", {"compatibility": "SIDEWAYS"}, 42203),
        ("PUT", "/mode/a", {"mode": "IMPORT"}, 42204),
        ("GET", "/config/a", None, 40408),
        ("GET", "/mode/a", None, 40409),
        ("DELETE", "/subjects/nobody", None, 40401),
        ("DELETE", "/subjects/a?permanent=true", None, 40405),
        ("DELETE", "/subjects/a/versions/1?permanent=true", None, 40407),
        ("GET", "/nothing", None, 404),
        ("PUT", "/subjects", {}, 405),
    ],
)
async def test_what_is_refused_has_confluents_code(whole, method, path, body, code):
    await register(whole, "a", json_schema())
    status, answer = await ask(whole, method, path, body)
    assert (status, answer["error_code"]) == (int(str(code)[:3]), code)
    assert answer["message"]


async def test_what_is_deleted_is_hidden_then_gone(whole):
    _, first = await register(whole, "a", json_schema())
    await register(whole, "a", json_schema(title="Two"))
    assert await ask(whole, "DELETE", "/subjects/a/versions/1") == (200, 1)
    assert await ask(whole, "GET", "/subjects/a/versions") == (200, [2])
    assert await ask(whole, "GET", "/subjects/a/versions?deleted=true") == (200, [1, 2])
    assert (await ask(whole, "GET", f"/schemas/ids/{first['id']}"))[0] == 200
    assert await ask(whole, "DELETE", "/subjects/a/versions/1?permanent=true") == (200, 1)
    assert (await ask(whole, "GET", f"/schemas/ids/{first['id']}"))[0] == 404
    assert await ask(whole, "DELETE", "/subjects/a") == (200, [2])
    assert (await ask(whole, "DELETE", "/subjects/a"))[1]["error_code"] == 40404
    assert await ask(whole, "GET", "/subjects") == (200, [])
    assert await ask(whole, "GET", "/subjects?deleted=true") == (200, ["a"])
    assert (await register(whole, "a", json_schema()))[1]["version"] == 3


async def test_what_another_refers_to_stays(whole):
    await register(whole, "person", {"schema": '{"type": "object"}', "schemaType": "JSON"})
    references = [{"name": "person.json", "subject": "person", "version": 1}]
    referring = {"schema": '{"$ref": "person.json"}', "schemaType": "JSON", "references": references}
    _, crew = await register(whole, "crew", referring)
    assert await ask(whole, "GET", "/subjects/person/versions/1/referencedby") == (200, [crew["id"]])
    assert (await ask(whole, "DELETE", "/subjects/person"))[1]["error_code"] == 42206


async def test_nothing_new_is_registered_while_only_reading_is_allowed(whole):
    await register(whole, "a", json_schema())
    await configure(mode="READONLY")
    assert (await register(whole, "a", json_schema(title="Two")))[1]["error_code"] == 42205
    assert (await register(whole, "a", json_schema()))[1]["version"] == 1
    assert (await ask(whole, "PUT", "/mode/a", {"mode": "READWRITE"}))[0] == 403
    await configure(mode="READWRITE")
    await ask(whole, "PUT", "/mode/a", {"mode": "READONLY"})
    assert (await register(whole, "a", json_schema(title="Two")))[1]["error_code"] == 42205
    await ask(whole, "PUT", "/mode/a", {"mode": "READWRITE"})
    assert (await register(whole, "a", json_schema(title="Two")))[0] == 200


async def configure(**changes):
    await sync_to_async(registry.configure)(registry.GLOBAL, by="operator", **changes)


async def test_the_level_of_a_subject_goes_before_the_default(whole):
    assert await ask(whole, "GET", "/config") == (200, {"compatibilityLevel": "BACKWARD"})
    await configure(compatibility="FULL")
    assert await ask(whole, "GET", "/config/a?defaultToGlobal=true") == (200, {"compatibilityLevel": "FULL"})
    await ask(whole, "PUT", "/config/a", {"compatibility": "NONE"})
    assert await ask(whole, "GET", "/config/a") == (200, {"compatibilityLevel": "NONE"})
    await ask(whole, "DELETE", "/config/a")
    assert (await ask(whole, "GET", "/config/a"))[1]["error_code"] == 40408


async def test_reading_and_changing_a_subject_take_the_right_to_it(whole):
    key = (
        await sync_to_async(issue_key)(
            consumer=await Consumer.objects.aget(name="acme"), scopes=["publish:mine-*"], by="test"
        )
    )[1]
    whole.keys["narrow"] = key
    await until(lambda: can_read(whole))
    assert (await register(whole, "mine-value", json_schema(), by="narrow"))[0] == 200
    status, answer = await register(whole, "yours-value", json_schema(), by="narrow")
    assert (status, answer["reason"]) == (403, "forbidden")
    assert (await ask(whole, "PUT", "/config", {"compatibility": "NONE"}, by="narrow"))[0] == 403
    body = json_schema()
    assert (await ask(whole, "POST", "/compatibility/subjects/yours/versions", body, by="narrow"))[0] == 403
    whole.keys["stranger"] = "nonsense"
    assert (await ask(whole, "GET", "/subjects", by="stranger"))[0] == 401


async def can_read(whole):
    return (await ask(whole, "GET", "/subjects", by="narrow"))[0] == 200


# Levels


LEVELS = {
    "BACKWARD": (True, False, True), "BACKWARD_TRANSITIVE": (True, False, False), "FORWARD": (False, True, True),
    "FORWARD_TRANSITIVE": (False, True, True), "FULL": (False, False, True), "FULL_TRANSITIVE": (False, False, False),
    "NONE": (True, True, True),
}  # fmt: skip
"""Whether a field may be removed, one be added, and one come back without a default after a version without it."""


@pytest.mark.parametrize("level", LEVELS)
async def test_each_level_takes_what_it_says(whole, level):
    name, age = USER["fields"]
    await ask(whole, "PUT", "/config/users", {"compatibility": level})
    await register(whole, "users", avro(fields=[name, {**age, "default": 0}, {"name": "must", "type": "long"}]))
    removed = await ask(whole, "POST", "/compatibility/subjects/users/versions/latest", avro(fields=[name, age]))
    more = [name, age, {"name": "must", "type": "long"}, {"name": "new", "type": "string"}]
    added = await ask(whole, "POST", "/compatibility/subjects/users/versions/latest?verbose=true", avro(fields=more))
    assert (removed[1]["is_compatible"], added[1]["is_compatible"]) == LEVELS[level][:2]
    assert bool(added[1]["messages"]) is not added[1]["is_compatible"]


@pytest.mark.parametrize(
    ("level", "is_taken"),
    [("BACKWARD", True), ("BACKWARD_TRANSITIVE", False), ("FULL", True), ("FULL_TRANSITIVE", False)],
)
async def test_transitive_levels_look_at_every_version(whole, level, is_taken):
    a, b = {"type": "integer"}, {"type": "string"}
    await ask(whole, "PUT", "/config/a", {"compatibility": "NONE"})
    await register(whole, "a", json_schema(properties={"id": a, "x": a}))
    await register(whole, "a", json_schema(properties={"id": a}))
    await ask(whole, "PUT", "/config/a", {"compatibility": level})
    body = json_schema(properties={"id": a, "x": b}, required=["id"])
    if level.startswith("FULL"):
        body = json_schema(title="only")
        body["schema"] = json.dumps(json.loads(body["schema"]) | {"properties": {"id": a}})
    status, answer = await register(whole, "a", body)
    assert (status == 200) is is_taken, answer


async def test_a_comparison_that_has_no_end_is_given_up(whole):
    chain = {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(200)}, "$ref": "#/$defs/d0"}
    chain["$defs"]["d200"] = {"type": "string"}
    await register(whole, "a", {"schema": '{"type": "string"}', "schemaType": "JSON"})
    status, answer = await register(whole, "a", {"schema": json.dumps(chain), "schemaType": "JSON"})
    assert (status, answer["error_code"]) == (422, 42201)
    assert "too complex" in answer["message"]


# Channels


async def channel_of(whole, subject, **more):
    await sync_to_async(create_channel)(address="orders", schema={"subject": subject}, by="test", **more)
    await until(lambda: asyncio.sleep(0, whole.plane.snapshot.channel("orders") is not None))


async def test_events_of_a_channel_are_as_the_latest_version_of_its_subject_says(whole):
    await register(whole, "orders-value", json_schema())
    await channel_of(whole, "orders-value", on_invalid="dead-letter")
    assert (await whole.call("POST", "/v1/channels/orders/events", {"id": 1}))[0] == 201
    status, answer = await whole.call("POST", "/v1/channels/orders/events", {"id": "one"})
    assert (status, answer["reason"], answer["pointer"]) == (422, "invalid-payload", "/id")
    await until(lambda: DeadLetter.objects.filter(channel="orders").aexists())
    wider = json_schema(properties={"id": {"type": ["integer", "string"]}})
    assert (await register(whole, "orders-value", wider))[0] == 200
    await until(lambda: is_taken(whole, {"id": "one"}))


async def is_taken(whole, event):
    return (await whole.call("POST", "/v1/channels/orders/events", event))[0] == 201


async def test_events_of_an_avro_subject_are_in_avros_json_encoding(whole):
    fields = [{"name": "name", "type": "string"}, {"name": "mail", "type": ["null", "string"], "default": None}]
    await register(whole, "users", avro(fields=fields))
    await channel_of(whole, "users")
    assert await is_taken(whole, {"name": "Ann", "mail": {"string": "a@b.example"}})
    status, answer = await whole.call("POST", "/v1/channels/orders/events", {"name": "Ann", "mail": "a@b.example"})
    assert (status, answer["pointer"]) == (422, "/mail")


async def test_a_channel_names_a_subject_that_there_is_and_keeps_it(whole):
    with pytest.raises(Exception, match="register one first"):
        await channel_of(whole, "nobody")
    await register(whole, "orders-value", json_schema())
    await channel_of(whole, "orders-value")
    assert (await ask(whole, "DELETE", "/subjects/orders-value"))[1]["error_code"] == 42206
    row = await Channel.objects.aget(address="orders")
    await sync_to_async(update_channel)(row, schema=None, by="test")
    assert (await ask(whole, "DELETE", "/subjects/orders-value"))[0] == 200
