"""The registry's answers, asked as the data plane asks: what is the same, what is deleted, what is told of it."""

import json
from unittest import mock

import pytest

from audit.models import Change
from events import registry
from events.models import Schema
from events.registry_rest import handle
from events.registry_schemas import parse_submitted

pytestmark = pytest.mark.django_db

RECORD = {"type": "record", "name": "User", "namespace": "shop", "fields": [{"name": "name", "type": "string"}]}
ORDER = {"type": "object", "title": "Order", "properties": {"id": {"type": "integer"}}, "additionalProperties": False}


def ask(method, path, body=None, **query):
    """Return status and body of one answer; the values of a parameter may be a list."""
    pairs = [
        (name, value) for name, values in query.items() for value in ([values] if isinstance(values, str) else values)
    ]
    rights = {"scopes": ["*"], "ceiling": None}
    answer = handle(
        {"method": method, "path": path.split("/"), "query": pairs, "body": body, "by": "acme (k)", **rights}
    )
    return answer["status"], answer.get("text", answer.get("body"))


def avro(schema):
    return {"schema": schema if isinstance(schema, str) else json.dumps(schema)}


def json_schema(**changes):
    return {"schema": json.dumps(ORDER | changes), "schemaType": "JSON"}


def register(subject, body, **query):
    status, answer = ask("POST", f"subjects/{subject}/versions", body, **query)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"string"', '{"type": "string"}'),
        (json.dumps(RECORD), json.dumps({name: RECORD[name] for name in sorted(RECORD)}, indent=2)),
        (json.dumps(RECORD), json.dumps({"type": "record", "name": "shop.User", "fields": RECORD["fields"]})),
    ],
)
def test_an_avro_schema_is_the_same_however_it_is_written(one, other):
    first, second = register("a", avro(one)), register("a", avro(other))
    assert first == second == register("b", avro(other)) | {"version": 1}
    assert ask("POST", "subjects/a", avro(other))[1]["schema"] == one
    assert register("c", avro(RECORD | {"doc": "Who buys"}))["id"] != first["id"]


def test_a_normalized_look_up_finds_what_was_registered_as_it_stood():
    register("a", json_schema())
    turned = {"schema": json.dumps(dict(reversed(ORDER.items()))), "schemaType": "JSON"}
    assert ask("POST", "subjects/a", turned)[1]["error_code"] == 40403
    assert ask("POST", "subjects/a", json_schema(), normalize="true")[0] == 200
    assert register("b", turned, normalize="true")["id"] == register("b", json_schema(), normalize="true")["id"]


def test_a_schema_alone_is_given_as_it_is():
    answer = register("a", json_schema())
    text = json_schema()["schema"]
    assert ask("GET", "subjects/a/versions/latest/schema") == (200, text)
    assert ask("GET", f"schemas/ids/{answer['id']}/schema") == (200, text)
    assert ask("GET", f"schemas/guids/{answer['guid']}")[1]["schema"] == text
    assert ask("GET", f"schemas/ids/{answer['id']}", fetchMaxId="true")[1]["maxId"] == answer["id"]


def test_a_subject_that_is_not_there_takes_any_schema():
    for path in ("compatibility/subjects/a/versions/latest", "compatibility/subjects/a/versions"):
        assert ask("POST", path, avro(RECORD)) == (200, {"is_compatible": True})
    register("a", avro('"int"'))
    ask("DELETE", "subjects/a")
    assert ask("POST", "compatibility/subjects/a/versions/latest", avro('"bytes"')) == (200, {"is_compatible": True})
    assert ask("POST", "compatibility/subjects/a/versions/1", avro('"bytes"'))[1]["error_code"] == 40401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "subjects/a", None),
        ("DELETE", "subjects/a/versions/1", None),
        ("PUT", "config/a", {"compatibility": "NONE"}),
        ("DELETE", "config/a", None),
        ("POST", "subjects/a/versions", avro('"bytes"')),
    ],
)
def test_nothing_of_a_subject_changes_while_it_may_only_be_read(method, path, body):
    register("a", avro('"string"'))
    ask("PUT", "config/a", {"compatibility": "FULL"})
    ask("PUT", "mode/a", {"mode": "READONLY"})
    assert ask(method, path, body)[1]["error_code"] == 42205
    ask("DELETE", "mode/a")
    assert ask(method, path, body)[0] == 200


@pytest.mark.parametrize("path", ["subjects/a", "subjects/a/versions/2"])
def test_a_subject_that_is_deleted_forgets_its_level(path):
    register("a", avro('"string"'))
    register("a", avro('["string", "long"]'))
    ask("PUT", "config/a", {"compatibility": "NONE"})
    ask("DELETE", "subjects/a/versions/1")
    assert ask("GET", "config/a") == (200, {"compatibilityLevel": "NONE"})
    assert ask("DELETE", path)[0] == 200
    assert ask("GET", "config/a")[1]["error_code"] == 40408
    assert ask("POST", "subjects/a/versions", avro('"int"'))[0] == 200


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
def test_a_level_is_set_for_names_that_a_subject_may_have(name):
    assert ask("PUT", f"config/{name}", {"compatibility": "FULL"})[1]["error_code"] == 42208
    assert ask("PUT", f"mode/{name}", {"mode": "READONLY"})[1]["error_code"] == 42208


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "code"),
    [
        ("GET", "subjects/a\0b/versions", None, {}, 42208),
        ("GET", "subjects", None, {"subjectPrefix": "a\0"}, 400),
        ("POST", "subjects/a/versions", {"schema": '"str\0ing"'}, {}, 42201),
        ("POST", "subjects/a/versions",
         {"schema": '"string"', "references": [{"name": "b", "subject": "b\0", "version": 1}]}, {}, 42201),
    ],
)  # fmt: skip
def test_nul_is_refused_wherever_it_stands(method, path, body, query, code):
    assert ask(method, path, body, **query)[1]["error_code"] == code


def test_each_version_that_is_made_or_deleted_stands_in_the_audit_log():
    register("a", json_schema())
    register("a", json_schema(title="Two"))
    ask("DELETE", "subjects/a/versions/1")
    ask("DELETE", "subjects/a/versions/1", permanent="true")
    reported = [change.after["numbers"] for change in Change.objects.filter(kind="schema", name="a").order_by("id")]
    assert reported == [
        {"live": [1], "deleted": []},
        {"live": [1, 2], "deleted": []},
        {"live": [2], "deleted": [1]},
        {"live": [2], "deleted": []},
    ]
    assert {change.actor for change in Change.objects.all()} == {"acme (k)"}


def test_lists_are_given_in_parts():
    for number in range(3):
        register("a", json_schema(title=str(number)))
    ask("DELETE", "subjects/a/versions/1")
    assert ask("GET", "subjects/a/versions", deleted="true", offset="1", limit="1") == (200, [2])
    assert ask("GET", "subjects/a/versions", deleted="true", deletedOnly="true") == (200, [1])
    assert ask("GET", "subjects", limit="-1") == (200, ["a"])
    assert ask("GET", "subjects", offset="1") == (200, [])


def test_metadata_and_rules_are_kept_for_clients_that_act_by_them():
    extra = {
        "metadata": {"properties": {"owner": "ann", "major": "1"}},
        "ruleSet": {"domainRules": [{"name": "secret", "kind": "TRANSFORM", "type": "ENCRYPT", "mode": "WRITEREAD"}]},
    }
    first = register("a", json_schema() | extra)
    assert ask("GET", "subjects/a/versions/latest")[1].items() >= extra.items()
    second = register("a", json_schema())
    assert (second["version"], second["id"] == first["id"]) == (2, False)
    found = ask("GET", "subjects/a/metadata", key=["owner", "major"], value=["ann", "1"])
    assert (found[0], found[1]["version"]) == (200, 1)
    assert ask("GET", "subjects/a/metadata", key="owner", value="bob")[1]["error_code"] == 40402
    assert ask("POST", "subjects/b/versions", json_schema() | {"metadata": "x"})[1]["error_code"] == 42201
    for properties in (["owner"], "owner", {"owner": ["ann"]}, {"owner": 1}):
        answer = ask("POST", "subjects/b/versions", json_schema() | {"metadata": {"properties": properties}})
        assert answer[1]["error_code"] == 42201
    assert ask("POST", "subjects/b/versions", json_schema() | {"metadata": {"properties": None}})[0] == 200
    assert ask("GET", "subjects/b/metadata", key="owner", value="ann")[1]["error_code"] == 40402
    long = {"metadata": {"properties": {"x": "y" * 70_000}}}
    assert ask("POST", "subjects/b/versions", json_schema() | long)[1]["error_code"] == 42201


def test_what_was_registered_while_a_schema_was_compared_is_compared_with_too():
    register("a", avro('"int"'))
    schema, compare = parse_submitted(avro('["int", "string"]')), registry.incompatible
    rivals = [parse_submitted(avro('"long"'))]

    def compared(*args):
        if rivals:
            registry.register("a", rivals.pop(), by="somebody faster")
        return compare(*args)

    with mock.patch.object(registry, "incompatible", compared), pytest.raises(Exception, match="version 2"):
        registry.register("a", schema, by="ann")
    assert Schema.objects.count() == 2


@pytest.mark.parametrize(
    ("query", "name"),
    [({"deleted": "banana"}, "deleted"), ({"limit": "many"}, "limit"), ({"offset": "-2"}, "offset"),
     ({"subjectPrefix": ""}, "subjectPrefix"), ({"deleted": ["true", "false"]}, "deleted")],
)  # fmt: skip
def test_an_empty_repeated_or_malformed_parameter_is_refused_by_its_name(query, name):
    status, answer = ask("GET", "subjects", **query)
    assert (status, answer["error_code"]) == (400, 400)
    assert f"`{name}`" in answer["message"]
