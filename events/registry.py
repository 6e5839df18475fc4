"""Every change of the schema registry: versions registered, hidden, deleted; what new versions must be to old ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet

from audit import recording
from events.compatibility.avro import unreadable
from events.compatibility.budget import Budget, Fault
from events.compatibility.json_documents import Document
from events.compatibility.json_schema import refused
from events.models import Channel, Schema, SchemaVersion, Subject
from gateway.schemas import avro
from gateway.schemas.faults import SchemaFault, TooComplex
from gateway.schemas.registered import AVRO, JSON, TYPES, Parsed, read, subject_named

GLOBAL = "*"
"""The name of the row that holds the default of all subjects; no schema is registered under it."""
TEXT_MAX_CHARS = 256 * 1024
NAME_MAX_CHARS = 255
REFERENCES_MAX = 50
REFERRED_MAX = 200
"""Schemas that one refers to, through others too."""
VERSIONS_MAX = 1000
SUBJECTS_MAX = 10_000
DETAILS_MAX = 10


class Compatibility(StrEnum):
    """What a new version must be to those before it."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def is_backward(self) -> bool:
        """The new version reads what the old one wrote."""
        return self.startswith(("BACKWARD", "FULL"))

    @property
    def is_forward(self) -> bool:
        """The old version reads what the new one writes."""
        return self.startswith(("FORWARD", "FULL"))


class Mode(StrEnum):
    """Whether versions may be registered."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"


class No(Exception):
    """The registry says no, with a code of Confluent's API; the first three digits are the HTTP status."""

    def __init__(self, code: int, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = list(details)


@dataclass(frozen=True, slots=True)
class Given:
    """A schema as somebody gives it: read, and found to be one."""

    type: str
    text: str
    references: list[dict[str, Any]]
    resolved: list[tuple[str, str]]
    parsed: Parsed
    digest: str


def given(fields: Any, *, normalize: bool = False) -> Given:
    """Read ``schema``, ``schemaType`` and ``references`` of a request. Raises No."""
    if not isinstance(fields, Mapping) or not isinstance(fields.get("schema"), str):
        raise No(42201, "Invalid schema: the body is an object whose `schema` is the schema as a text.")
    text, type_ = fields["schema"], fields.get("schemaType") or AVRO
    if type_ not in TYPES:
        raise No(42201, f"Invalid schema: `schemaType` is {' or '.join(TYPES)}; {str(type_)[:40]!r} is not had here.")
    if len(text) > TEXT_MAX_CHARS:
        raise No(42201, f"Invalid schema: it has more than {TEXT_MAX_CHARS} characters.")
    references = _references(fields.get("references"))
    resolved = _resolved(references)
    try:
        parsed = read(type_, text, resolved)
        if normalize:
            text = _normal(parsed)
            parsed = read(type_, text, resolved)
    except SchemaFault as fault:
        raise No(42201, f"Invalid schema: {fault}") from None
    same = [type_, json.dumps(parsed.value, separators=(",", ":")), references]
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()
    return Given(type_, text, references, resolved, parsed, digest)


def register(subject_name: str, schema: Given, *, by: str) -> SchemaVersion:
    """Make a schema the latest version of a subject; one that is a version already stays. Raises No."""
    if not 0 < len(subject_name) <= NAME_MAX_CHARS or not subject_name.isprintable() or subject_name == GLOBAL:
        raise No(42208, f"Invalid subject: a name has 1 to {NAME_MAX_CHARS} printable characters.")
    with transaction.atomic():
        subject = _held(subject_name)
        versions = live(subject) if subject is not None else SchemaVersion.objects.none()
        known = versions.filter(schema__digest=schema.digest).last()
        if known is not None:
            return known
        if mode_of(subject_name) is Mode.READONLY:
            raise No(42205, f"Subject {subject_name} is in read-only mode.")
        faults = incompatible(subject_name, schema, versions)
        if faults:
            raise No(
                409,
                f'Schema being registered is incompatible with an earlier schema for subject "{subject_name}", '
                f"details: {'; '.join(faults)}",
                faults,
            )
        number = _next_number(subject)
        row, _ = Schema.objects.get_or_create(
            digest=schema.digest,
            defaults={"type": schema.type, "text": schema.text, "references": schema.references},
        )
        told = {"latest": _told(number, row)}
        if subject is None:
            subject = recording.create("schema", Subject(name=subject_name, **told), subject_name, by=by)
        else:
            recording.update("schema", subject, subject_name, told, by=by)
        return SchemaVersion.objects.create(subject=subject, version=number, schema=row)


def incompatible(subject_name: str, schema: Given, versions: Iterable[SchemaVersion]) -> list[str]:
    """Say why a schema does not fit to these versions of a subject, by its level; nothing where it does. Raises No."""
    level = compatibility_of(subject_name)
    earlier = list(versions)
    if level is Compatibility.NONE or not earlier:
        return []
    if not level.endswith("_TRANSITIVE"):
        earlier = earlier[-1:]
    budget, found = Budget(), []
    try:
        for version in reversed(earlier):
            found += _faults(level, schema.parsed, version, budget)
    except (TooComplex, RecursionError):
        raise No(42201, "Invalid schema: it is too complex to be compared with an earlier version.") from None
    return found[:DETAILS_MAX]


def _faults(level: Compatibility, new: Parsed, version: SchemaVersion, budget: Budget) -> list[str]:
    if version.schema.type != new.type:
        return [f"version {version.version} is of type {version.schema.type}, the new one {new.type}"]
    old = read(version.schema.type, version.schema.text, _resolved(version.schema.references))
    directions = []
    if level.is_backward:
        directions.append(("the new version cannot read version", new, old))
    if level.is_forward:
        directions.append(("data of the new version cannot be read by version", old, new))
    faults = ((said, _unread(reader, writer, budget)) for said, reader, writer in directions)
    return [f"{said} {version.version}: {fault}" for said, fault in faults if fault is not None]


def _unread(reader: Parsed, writer: Parsed, budget: Budget) -> Fault | None:
    if reader.node is not None and writer.node is not None:
        return unreadable(reader.node, writer.node, budget)
    return refused(Document.of(reader.value, reader.others), Document.of(writer.value, writer.others), budget)


def hide(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Delete versions so that they can be had still, by whoever asks for deleted ones. Raises No."""
    numbers = [version.version for version in versions]
    _require_unused(subject, numbers)
    with transaction.atomic():
        subject.versions.filter(version__in=numbers).update(is_deleted=True)
        version = live(subject).last()
        told = None if version is None else _told(version.version, version.schema)
        recording.update("schema", subject, subject.name, {"latest": told}, by=by)


def erase(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Delete hidden versions for good, and the subject with its last one. Raises No."""
    numbers = [version.version for version in versions]
    _require_unused(subject, numbers)
    with transaction.atomic():
        gone = subject.versions.filter(version__in=numbers)
        schemas = [version.schema_id for version in gone]
        gone.delete()
        Schema.objects.filter(id__in=schemas, versions=None).delete()
        if not subject.versions.exists():
            recording.delete("schema", subject, subject.name, by=by)


def configure(subject_name: str, *, by: str, **changes: str) -> None:
    """Set ``compatibility`` or ``mode`` of a subject, or with :data:`GLOBAL` of all; empty: the default again."""
    with transaction.atomic():
        subject = _held(subject_name)
        if subject is None:
            recording.create("schema", Subject(name=subject_name, **changes), subject_name, by=by)
        else:
            recording.update("schema", subject, subject_name, dict(changes), by=by)


def compatibility_of(subject_name: str) -> Compatibility:
    """Give the level that holds for a subject."""
    return Compatibility(_setting(subject_name, "compatibility") or Compatibility.BACKWARD)


def mode_of(subject_name: str) -> Mode:
    """Give the mode that holds for a subject."""
    return Mode(_setting(subject_name, "mode") or Mode.READWRITE)


def live(subject: Subject) -> QuerySet[SchemaVersion]:
    """Give the versions that are not deleted, the oldest first."""
    return subject.versions.filter(is_deleted=False).select_related("schema").order_by("version")


def latest(subject_name: str) -> Parsed | None:
    """Give the schema that events of a subject must be by now."""
    subject = Subject.objects.filter(name=subject_name).first()
    if subject is None or subject.latest is None:
        return None
    found = subject.latest
    return read(found["type"], found["schema"], [(name, text) for name, text in found["references"]])


def _setting(subject_name: str, field: str) -> str:
    own = dict(Subject.objects.filter(name__in=(subject_name, GLOBAL)).values_list("name", field))
    return own.get(subject_name) or own.get(GLOBAL) or ""


def _held(subject_name: str) -> Subject | None:
    """Give a subject's row, held until the transaction ends; None where it is to be made. Raises No."""
    subject = Subject.objects.select_for_update().filter(name=subject_name).first()
    if subject is None and Subject.objects.count() >= SUBJECTS_MAX:
        raise No(42205, f"There are {SUBJECTS_MAX} subjects, and no more may be.")
    return subject


def _next_number(subject: Subject | None) -> int:
    """Number the next version: never as one that was deleted. Raises No for one too many."""
    if subject is None:
        return 1
    if subject.versions.count() >= VERSIONS_MAX:
        raise No(42205, f"A subject has at most {VERSIONS_MAX} versions: delete some for good.")
    return int(subject.versions.aggregate(last=Max("version"))["last"] or 0) + 1


def _told(number: int, schema: Schema) -> dict[str, Any]:
    """Say a version as the snapshot has it."""
    return {
        "version": number,
        "id": schema.pk,
        "type": schema.type,
        "schema": schema.text,
        "references": [list(pair) for pair in _resolved(schema.references)],
    }


def _require_unused(subject: Subject, numbers: list[int]) -> None:
    """Raise No where another schema refers to one of these versions, or a channel would be left without a schema."""
    for schema in Schema.objects.exclude(references=[]).filter(versions__isnull=False).distinct():
        for reference in schema.references:
            if reference["subject"] == subject.name and reference["version"] in numbers:
                raise No(42206, f"One or more references exist to the schema: schema {schema.pk} refers to it.")
    if live(subject).exclude(version__in=numbers).exists():
        return
    for channel in Channel.objects.exclude(schema=None):
        if subject_named(channel.schema) == subject.name:
            raise No(42206, f"The channel {channel.address} takes its events' schema from {subject.name}.")


def _references(references: Any) -> list[dict[str, Any]]:
    if references is None:
        return []
    if not isinstance(references, list) or len(references) > REFERENCES_MAX:
        raise No(42201, f"Invalid schema: `references` is a list of at most {REFERENCES_MAX}.")
    found = []
    for reference in references:
        if not isinstance(reference, Mapping) or not _is_reference(reference):
            raise No(42201, "Invalid schema: a reference has `name` and `subject`, texts, and `version`, a number.")
        version = _version(reference["subject"], reference["version"])
        found.append({"name": reference["name"], "subject": reference["subject"], "version": version.version})
    return found


def _is_reference(reference: Mapping[str, Any]) -> bool:
    version = reference.get("version")
    return (
        isinstance(reference.get("name"), str)
        and isinstance(reference.get("subject"), str)
        and isinstance(version, int)
        and not isinstance(version, bool)
    )


def _version(subject_name: str, number: int) -> SchemaVersion:
    """Find the version that a reference names; -1 is the latest."""
    versions = SchemaVersion.objects.select_related("schema").filter(subject__name=subject_name, is_deleted=False)
    found = (versions.filter(version=number) if number != -1 else versions.order_by("version")).last()
    if found is None:
        raise No(42201, f"Invalid schema: no schema reference found for subject {subject_name[:100]} version {number}.")
    return found


def _resolved(references: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Give the texts of what references name, each after what it refers to itself."""
    found: dict[str, str] = {}

    def follow(wanted: list[dict[str, Any]]) -> None:
        for reference in wanted:
            if reference["name"] in found:
                continue
            schema = SchemaVersion.objects.select_related("schema").get(
                subject__name=reference["subject"], version=reference["version"]
            ).schema  # fmt: skip
            follow(schema.references)
            found[reference["name"]] = schema.text
            if len(found) > REFERRED_MAX:
                raise No(42201, f"Invalid schema: it refers to more than {REFERRED_MAX} others.")

    follow(references)
    return list(found.items())


def _normal(parsed: Parsed) -> str:
    value = avro.normal(parsed.value) if parsed.type == AVRO else parsed.value
    return json.dumps(value, sort_keys=parsed.type == JSON, separators=(",", ":"), ensure_ascii=False)
