"""The section ``schemas`` of a document: the subjects of the schema registry with all of their versions."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError

from audit.diff import Diff
from audit.storable import DEPTH_MAX, require_plain
from configuration.registry_faults import FIELDS, SETTINGS
from events import registry, registry_history
from events.models import SchemaVersion, Subject
from events.registry_schemas import RegistryError, SubmittedSchema, parse_submitted
from gateway.schemas.registered import JSON

_AROUND = 4
"""The levels of a document around a schema."""


def exported() -> list[dict[str, Any]]:
    """Return every version of every subject, also deleted ones, each after the versions that it references.

    The settings of a subject are in the entry of its latest version, or in one of their own if there is none.
    """
    versions = SchemaVersion.objects.select_related("subject", "schema").order_by("subject__name", "version")
    by_number = {(version.subject.name, version.version): version for version in versions}
    entries: dict[tuple[str, int], dict[str, Any]] = {}

    def add(name: str, number: int) -> None:
        version = by_number.get((name, number))
        if version is None or (name, number) in entries:
            return
        for reference in version.schema.references:
            add(reference["subject"], reference["version"])
        entries[name, number] = _entry(version)

    latest = {name: number for (name, number), version in by_number.items() if not version.is_deleted}
    for name, number in by_number:
        add(name, number)
    alone = []
    for subject in Subject.objects.order_by("name"):
        settings = {name: value for name in SETTINGS if (value := getattr(subject, name))}
        if settings and subject.name in latest:
            entry = entries[subject.name, latest[subject.name]]
            entries[subject.name, latest[subject.name]] = _ordered(entry | settings)
        elif settings:
            alone.append({"subject": subject.name, **settings})
    return [*alone, *entries.values()]


class Section:
    """Writes the entries of a section, in three passes over all of them: loosen, put, settle."""

    def __init__(self, entries: list[dict[str, Any]], diff: Diff, *, by: str) -> None:
        self._diff = diff
        self._by = by
        self._settings: dict[str, dict[str, str]] = {entry["subject"]: dict.fromkeys(SETTINGS, "") for entry in entries}
        for entry in entries:
            self._settings[entry["subject"]] |= {name: entry[name] for name in SETTINGS if name in entry}
        subjects = Subject.objects.filter(name__in=self._settings)
        self._before = {subject.name: _state(subject) for subject in subjects}
        self._known = set(subjects.filter(versions__isnull=False).values_list("name", flat=True))
        self._settled: set[str] = set()

    def loosen(self, entry: dict[str, Any]) -> None:
        """Set the level by which versions are compared, and let them be written. Raises ValidationError."""
        changes = {name: entry[name] for name in SETTINGS if name in entry and entry[name] != registry.Mode.READONLY}
        if changes:
            _calling(registry.configure, entry["subject"], by=self._by, **changes)

    def put(self, entry: dict[str, Any]) -> None:
        """Write the version of an entry, unless it is so. Raises ValidationError."""
        name, number, schema_id = entry["subject"], entry.get("version"), entry.get("id")
        submitted = _submitted(entry)
        if submitted is None:
            return
        if number is None:
            _calling(registry.register, name, submitted, schema_id=schema_id, by=self._by)
            return
        is_new = name not in self._known
        is_deleted = entry.get("is_deleted", False)
        _calling(
            registry_history.take_over, name, submitted, version=number, schema_id=schema_id, is_deleted=is_deleted,
            is_new_subject=is_new, by=self._by,
        )  # fmt: skip

    def settle(self, entry: dict[str, Any]) -> None:
        """Record the versions of a subject, and set its level and its mode. Raises ValidationError."""
        name = entry["subject"]
        if name in self._settled:
            return
        self._settled.add(name)
        subject = Subject.objects.filter(name=name).first()
        if subject is not None and name != registry.GLOBAL:
            registry.refresh(subject, by=self._by)
        if subject is not None or any(self._settings[name].values()):
            _calling(registry.configure, name, by=self._by, **self._settings[name])
        subject = Subject.objects.filter(name=name).first()
        self._diff.add("schema", name, self._before.get(name), None if subject is None else _state(subject))


def _entry(version: SchemaVersion) -> dict[str, Any]:
    schema = version.schema
    value = json.loads(schema.text)
    entry = {"subject": version.subject.name, "type": schema.type, "version": version.version, "id": schema.pk}
    entry |= {"schema": value} if _is_plain(value) else {"text": schema.text}
    entry |= {"is_deleted": version.is_deleted, "references": schema.references}
    entry |= {"metadata": schema.extra.get("metadata", {}), "rule_set": schema.extra.get("ruleSet", {})}
    defaults = {"type": JSON, "is_deleted": False, "references": [], "metadata": {}, "rule_set": {}}
    return _ordered({name: value for name, value in entry.items() if name not in defaults or value != defaults[name]})


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    return {field: entry[field] for field in FIELDS if field in entry}


def _is_plain(value: Any) -> bool:
    """Return whether a document can have a schema as it is: a default of Avro may be a NUL, for example."""
    try:
        require_plain(value, DEPTH_MAX - _AROUND)
    except (TypeError, ValueError):
        return False
    return True


def _submitted(entry: dict[str, Any]) -> SubmittedSchema | None:
    """Return the schema of an entry; None if it has only settings. Raises ValidationError."""
    if "schema" not in entry and "text" not in entry:
        return None
    fields = {
        "schema": entry["text"] if "text" in entry else json.dumps(entry["schema"], ensure_ascii=False),
        "schemaType": entry.get("type", JSON),
        "references": entry.get("references", []),
        "metadata": entry.get("metadata"),
        "ruleSet": entry.get("rule_set"),
    }
    submitted: SubmittedSchema = _calling(parse_submitted, fields)
    return submitted


def _calling(service: Any, *args: Any, **options: Any) -> Any:
    """Return what a service of the registry returns. Raises ValidationError for an error of the registry."""
    try:
        return service(*args, **options)
    except RegistryError as error:
        raise ValidationError({"schema": error.message}) from None


def _state(subject: Subject) -> dict[str, Any]:
    return subject.representation() | {"versions": subject.numbers}
