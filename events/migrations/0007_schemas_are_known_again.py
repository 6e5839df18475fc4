"""Makes schemas that were registered before known again by what they are known by now, and tells their versions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from gateway.schemas.avro import normalize


def _know_again(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """An Avro schema is the same however it is written; of several that were kept apart the first is it from now on."""
    schemas = apps.get_model("events", "Schema").objects
    for schema in schemas.filter(type="AVRO").order_by("id").iterator():
        digest = _digest(schema.text, schema.references, schema.extra)
        if digest != schema.digest and not schemas.filter(digest=digest).exists():
            schemas.filter(pk=schema.pk).update(digest=digest)


def _digest(text: str, references: list[Any], extra: dict[str, Any]) -> str:
    value = json.dumps(normalize(json.loads(text)), sort_keys=True, separators=(",", ":"))
    same = ["AVRO", value, references, *([extra] if extra else [])]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _tell_versions(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    versions = apps.get_model("events", "SchemaVersion").objects.order_by("version")
    subjects = apps.get_model("events", "Subject").objects
    for subject in subjects.filter(numbers={}).iterator():
        numbers_by_state: dict[str, list[int]] = {"live": [], "deleted": []}
        for number, is_deleted in versions.filter(subject=subject).values_list("version", "is_deleted"):
            numbers_by_state["deleted" if is_deleted else "live"].append(number)
        if any(numbers_by_state.values()):
            subjects.filter(pk=subject.pk).update(numbers=numbers_by_state)


class Migration(migrations.Migration):
    dependencies = (("events", "0006_registry_is_told_whole"),)
    operations = (
        migrations.RunPython(_know_again, migrations.RunPython.noop),
        migrations.RunPython(_tell_versions, migrations.RunPython.noop),
    )
