"""Schemas that an earlier version has registered: known again, under the ids that clients hold."""

import hashlib
import json
from importlib import import_module

import pytest
from django.apps import apps

from events.models import Schema, Subject
from events.tests.test_registry_answers import ask, avro, json_schema, register

pytestmark = pytest.mark.django_db

SPREAD = '{"name": "User", "namespace": "shop", "type": "record", "fields": [{"name": "n", "type": {"type": "int"}}]}'
TIGHT = '{"type":"record","name":"shop.User","fields":[{"name":"n","type":"int"}]}'


def make_old(schema_id, text):
    """Leave a schema as it was before one was known again however it is written."""
    same = ["AVRO", json.dumps(json.loads(text), separators=(",", ":")), []]
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()
    Schema.objects.filter(id=schema_id).update(digest=digest, text=text)


def upgrade():
    migration = import_module("events.migrations.0007_schemas_are_known_again").Migration
    for operation in migration.operations:
        operation.code(apps, None)


def test_what_was_registered_before_the_upgrade_is_known_again_and_keeps_its_id():
    first, other = register("a", avro(SPREAD)), register("b", json_schema())
    make_old(first["id"], SPREAD)
    upgrade()
    for subject, body, before in (("a", avro(SPREAD), first), ("a", avro(TIGHT), first), ("b", json_schema(), other)):
        again = register(subject, body)
        assert (again["id"], again["version"]) == (before["id"], 1)


def test_what_was_kept_apart_before_the_upgrade_keeps_its_ids():
    first, second = register("a", avro(SPREAD)), register("b", avro('"string"'))
    make_old(second["id"], TIGHT)
    make_old(first["id"], SPREAD)
    upgrade()
    assert ask("GET", f"schemas/ids/{second['id']}/schema") == (200, TIGHT)
    assert register("c", avro(TIGHT))["id"] == first["id"]


def test_which_versions_there_are_is_told_of_subjects_of_before_the_upgrade():
    register("a", avro('"int"'))
    register("a", avro('["int", "string"]'))
    assert ask("DELETE", "subjects/a/versions/1")[0] == 200
    reported = Subject.objects.get(name="a").numbers
    ask("PUT", "config/b", {"compatibility": "FULL"})
    Subject.objects.update(numbers={})
    upgrade()
    assert Subject.objects.get(name="a").numbers == reported == {"live": [2], "deleted": [1]}
    assert Subject.objects.get(name="b").numbers == {}
