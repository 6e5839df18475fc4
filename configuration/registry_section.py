"""The section ``schemas`` of a document: subjects of the schema registry with their latest versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ValidationError

from audit.diff import Diff
from events import registry
from events.models import SchemaVersion, Subject
from events.registry_schemas import RegistryError, parse_submitted
from gateway.schemas.registered import JSON

SECTION = "schemas"
FIELDS = ("subject", "type", "version", "compatibility", "mode", "schema", "references")


def exported() -> list[dict[str, Any]]:
    """Return the latest version of every subject, and what it references, each after its references.

    A subject that has settings and no version has an entry, too. Earlier versions are not exported.
    """
    entries: dict[tuple[str, int], dict[str, Any]] = {}
    for subject in Subject.objects.order_by("name"):
        version = registry.live(subject).last()
        if version is not None:
            _add(version, entries)
        settings = {name: value for name in ("compatibility", "mode") if (value := getattr(subject, name))}
        if settings:
            number = 0 if version is None else version.version
            entries[subject.name, number] = _with_settings(entries.get((subject.name, number), {}), subject, settings)
    return list(entries.values())


def faults(entries: Any) -> Iterator[tuple[str, list[str | int]]]:
    """Yield what is wrong with the section, with its place in the section."""
    if not isinstance(entries, list):
        yield f"{SECTION} must be a list", []
        return
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield "a schema must be a mapping", [number]
            continue
        for message, *path in _entry_faults(entry):
            yield message, [number, *path]


def _entry_faults(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what is wrong with an entry, and the field if it has one."""
    for name in entry:
        if name not in FIELDS:
            yield f"unknown field {name}; the fields of a schema are {', '.join(FIELDS)}", name
    for name in ("subject", "type", "compatibility", "mode"):
        if not isinstance(entry.get(name, "x"), str):
            yield f"{name} must be a string", name
    if not entry.get("subject"):
        yield ("a schema needs subject",)


def put(entry: dict[str, Any], diff: Diff, by: str) -> None:
    """Register a schema and set its subject's compatibility and mode, unless they are so. Raises ValidationError."""
    name = entry["subject"]
    before = _state(name)
    try:
        if "schema" in entry:
            submitted = {
                "schema": json.dumps(entry["schema"], ensure_ascii=False),
                "schemaType": entry.get("type", JSON),
                "references": entry.get("references", []),
            }
            registry.register(name, parse_submitted(submitted), version=_number(entry), by=by)
        registry.configure(name, compatibility=_choice(entry, registry.Compatibility, "compatibility"),
                           mode=_choice(entry, registry.Mode, "mode"), by=by)  # fmt: skip
    except RegistryError as error:
        raise ValidationError({"schema": error.message}) from None
    diff.add("schema", name, before, _state(name))


def _add(version: SchemaVersion, entries: dict[tuple[str, int], dict[str, Any]]) -> None:
    name, schema = version.subject.name, version.schema
    if (name, version.version) in entries:
        return
    for reference in schema.references:
        _add(
            SchemaVersion.objects.select_related("schema", "subject").get(
                subject__name=reference["subject"], version=reference["version"]
            ),
            entries,
        )
    defaults = {"type": JSON, "version": 1, "references": []}
    values = {"type": schema.type, "version": version.version, "schema": json.loads(schema.text)}
    values["references"] = schema.references
    kept = {field: value for field, value in values.items() if field not in defaults or value != defaults[field]}
    entries[name, version.version] = {"subject": name, **kept}


def _with_settings(entry: dict[str, Any], subject: Subject, settings: dict[str, str]) -> dict[str, Any]:
    values = {"subject": subject.name, **entry, **settings}
    return {field: values[field] for field in FIELDS if field in values}


def _state(name: str) -> dict[str, Any] | None:
    subject = Subject.objects.filter(name=name).first()
    return None if subject is None else subject.representation()


def _number(entry: dict[str, Any]) -> int:
    number = entry.get("version", 1)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**31:
        raise ValidationError({"version": "Must be a positive whole number."})
    return number


def _choice(entry: dict[str, Any], choices: Any, field: str) -> str:
    value: str = entry.get(field, "")
    if value and value not in list(choices):
        raise ValidationError({field: f"Must be one of {', '.join(choices)}."})
    return value
