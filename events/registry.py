"""Services of the schema registry: register and delete versions, check compatibility, set levels and modes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet

from audit import recording
from events.compatibility.avro import find_avro_mismatch
from events.compatibility.budget import Budget, Mismatch
from events.compatibility.json_documents import Document
from events.compatibility.json_schema import find_json_mismatch
from events.models import Channel, Schema, SchemaVersion, Subject
from events.registry_ids import schema_row
from events.registry_schemas import RegistryError, SubmittedSchema, resolve_references
from gateway.refusals import Reason, Refused
from gateway.schemas.errors import TooComplex
from gateway.schemas.registered import Parsed, read, subject_named

GLOBAL = "*"
"""The name of the row that holds the defaults of all subjects; no schema is registered under it."""
NAME_MAX_CHARS = 255
VERSIONS_MAX = 1000
SUBJECTS_MAX = 10_000
DETAILS_MAX = 10
RETRIES_MAX = 10
"""How often a registration restarts because the subject changed while schemas were compared."""


class Compatibility(StrEnum):
    """How a new version must relate to earlier ones."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def is_backward(self) -> bool:
        """The new version can read data of the old one."""
        return self.startswith(("BACKWARD", "FULL"))

    @property
    def is_forward(self) -> bool:
        """The old version can read data of the new one."""
        return self.startswith(("FORWARD", "FULL"))


class Mode(StrEnum):
    """Whether versions may be registered."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"


def register(
    subject_name: str, schema: SubmittedSchema, *, version: int = 1, schema_id: int | None = None, by: str
) -> SchemaVersion:
    """Register a schema as the latest version of a subject, or return the version that it already is.

    ``version`` is the least number that a new version may have, ``schema_id`` the id of a schema that has none yet.

    Schemas are compared before a lock is taken, as that may take a second; if the subject changed meanwhile, it is done
    again. Raises RegistryError.
    """
    require_subject(subject_name)
    for _ in range(RETRIES_MAX):
        before = _state_of(subject_name)
        if (existing := before.find(schema)) is not None:
            return SchemaVersion.objects.select_related("schema", "subject").get(pk=existing)
        require_writable(subject_name)
        _require_compatible(subject_name, schema)
        with transaction.atomic():
            subject = lock_subject(subject_name)
            if _state_of(subject_name) == before:
                return _create_version(
                    subject, subject_name, schema, max(_next_number(subject), version), schema_id, by
                )
    raise Refused(Reason.OVERLOADED, "The subject is being changed by others at the same time.", retry_after_s=1)


@dataclass(frozen=True, slots=True)
class SubjectState:
    """The state of a subject that decides about a registration."""

    level: Compatibility
    mode: Mode
    versions: tuple[tuple[int, str], ...]
    """Primary key and schema digest of each version that is not deleted, oldest first."""

    def find(self, schema: SubmittedSchema) -> int | None:
        """Return the primary key of the latest version with the same schema."""
        return next((key for key, digest in reversed(self.versions) if digest in schema.digests), None)


def _state_of(subject_name: str) -> SubjectState:
    versions = SchemaVersion.objects.filter(subject__name=subject_name, is_deleted=False).order_by("version")
    return SubjectState(
        compatibility_of(subject_name), mode_of(subject_name), tuple(versions.values_list("pk", "schema__digest"))
    )


def _require_compatible(subject_name: str, schema: SubmittedSchema) -> None:
    subject = Subject.objects.filter(name=subject_name).first()
    mismatches = [] if subject is None else incompatible(subject_name, schema, live(subject))
    if mismatches:
        raise RegistryError(
            409,
            f'Schema being registered is incompatible with an earlier schema for subject "{subject_name}", '
            f"details: {'; '.join(mismatches)}",
            mismatches,
        )


def _create_version(
    subject: Subject | None, subject_name: str, schema: SubmittedSchema, number: int, schema_id: int | None, by: str
) -> SchemaVersion:
    row = schema_row(schema, schema_id)
    fields = {"latest": _latest_document(number, row)}
    if subject is None:
        fields["numbers"] = {"live": [number], "deleted": []}
        subject = recording.create("schema", Subject(name=subject_name, **fields), subject_name, by=by)
        return SchemaVersion.objects.create(subject=subject, version=number, schema=row)
    version = SchemaVersion.objects.create(subject=subject, version=number, schema=row)
    recording.update("schema", subject, subject_name, fields | _numbers_of(subject), by=by)
    return version


def _numbers_of(subject: Subject) -> dict[str, Any]:
    """Return the numbers of a subject's versions, for the audit log."""
    numbers: dict[str, list[int]] = {"live": [], "deleted": []}
    for number, is_deleted in subject.versions.order_by("version").values_list("version", "is_deleted"):
        numbers["deleted" if is_deleted else "live"].append(number)
    return {"numbers": numbers}


def require_writable(subject_name: str) -> None:
    """Raise RegistryError if a subject is read-only."""
    if mode_of(subject_name) is Mode.READONLY:
        raise RegistryError(42205, f"Subject {subject_name} is in read-only mode.")


def incompatible(subject_name: str, schema: SubmittedSchema, versions: Iterable[SchemaVersion]) -> list[str]:
    """Return why a schema is incompatible with versions of a subject, by its level; empty if it is compatible.

    Raises RegistryError if the schemas are too complex to compare.
    """
    level = compatibility_of(subject_name)
    if level is Compatibility.NONE:
        return []
    earlier = list(versions)
    if not level.endswith("_TRANSITIVE"):
        earlier = earlier[-1:]
    budget, mismatches = Budget(), []
    try:
        for version in reversed(earlier):
            mismatches += _mismatches(level, schema.parsed, version, budget)
    except (TooComplex, RecursionError):
        raise RegistryError(42201, "Invalid schema: it is too complex to compare with an earlier version.") from None
    return mismatches[:DETAILS_MAX]


def _mismatches(level: Compatibility, new: Parsed, version: SchemaVersion, budget: Budget) -> list[str]:
    if version.schema.type != new.type:
        return [f"version {version.version} is of type {version.schema.type}, the new one {new.type}"]
    old = read(version.schema.type, version.schema.text, resolve_references(version.schema.references))
    directions = []
    if level.is_backward:
        directions.append(("the new version cannot read version", new, old))
    if level.is_forward:
        directions.append(("data of the new version cannot be read by version", old, new))
    results = ((text, _find_mismatch(reader, writer, budget)) for text, reader, writer in directions)
    return [f"{text} {version.version}: {mismatch}" for text, mismatch in results if mismatch is not None]


def _find_mismatch(reader: Parsed, writer: Parsed, budget: Budget) -> Mismatch | None:
    if reader.node is not None and writer.node is not None:
        return find_avro_mismatch(reader.node, writer.node, budget)
    return find_json_mismatch(
        Document.of(reader.value, reader.others), Document.of(writer.value, writer.others), budget
    )


def hide(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Soft-delete versions: they are only returned if deleted versions are requested. Raises RegistryError.

    With its last version a subject loses its own level and mode.
    """
    numbers = [version.version for version in versions]
    require_writable(subject.name)
    _require_unused(subject, numbers)
    with transaction.atomic():
        subject.versions.filter(version__in=numbers).update(is_deleted=True)
        refresh(subject, by=by)


def refresh(subject: Subject, *, by: str) -> None:
    """Record which versions a subject has; without one that is not deleted it loses its own level and mode."""
    version = live(subject).last()
    fields: dict[str, Any] = {"latest": None, "compatibility": "", "mode": ""}
    if version is not None:
        fields = {"latest": _latest_document(version.version, version.schema)}
    recording.update("schema", subject, subject.name, fields | _numbers_of(subject), by=by)


def erase(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Permanently delete soft-deleted versions, and the subject with its last one. Raises RegistryError."""
    numbers = [version.version for version in versions]
    require_writable(subject.name)
    _require_unused(subject, numbers)
    with transaction.atomic():
        deleted = subject.versions.filter(version__in=numbers)
        schemas = [version.schema_id for version in deleted]
        deleted.delete()
        Schema.objects.filter(id__in=schemas, versions=None).delete()
        if subject.versions.exists():
            recording.update("schema", subject, subject.name, _numbers_of(subject), by=by)
        else:
            recording.delete("schema", subject, subject.name, by=by)


def configure(subject_name: str, *, by: str, **changes: str) -> None:
    """Set ``compatibility`` or ``mode`` of a subject, or of :data:`GLOBAL`; an empty value restores the default.

    Raises RegistryError.
    """
    _require_name(subject_name)
    with transaction.atomic():
        subject = lock_subject(subject_name)
        if subject is None:
            recording.create("schema", Subject(name=subject_name, **changes), subject_name, by=by)
        else:
            recording.update("schema", subject, subject_name, dict(changes), by=by)


def compatibility_of(subject_name: str) -> Compatibility:
    """Return the effective compatibility level of a subject."""
    return Compatibility(_setting(subject_name, "compatibility") or Compatibility.BACKWARD)


def mode_of(subject_name: str) -> Mode:
    """Return the effective mode of a subject."""
    return Mode(_setting(subject_name, "mode") or Mode.READWRITE)


def live(subject: Subject) -> QuerySet[SchemaVersion]:
    """Return the versions that are not deleted, oldest first."""
    return subject.versions.filter(is_deleted=False).select_related("schema").order_by("version")


def latest_of(subject_name: str) -> dict[str, Any] | None:
    """Return the latest version of a subject as in the snapshot; None if there is none."""
    subject = Subject.objects.filter(name=subject_name).first()
    document: dict[str, Any] | None = None if subject is None else subject.latest
    return document


def latest(subject_name: str) -> Parsed | None:
    """Return the schema by which events of a subject are validated; None if there is none."""
    document = latest_of(subject_name)
    if document is None:
        return None
    return read(document["type"], document["schema"], [(name, text) for name, text in document["references"]])


def _setting(subject_name: str, field: str) -> str:
    own = dict(Subject.objects.filter(name__in=(subject_name, GLOBAL)).values_list("name", field))
    return own.get(subject_name) or own.get(GLOBAL) or ""


def require_subject(subject_name: str) -> None:
    """Raise RegistryError for a name under which no schema can be registered."""
    if subject_name == GLOBAL:
        raise RegistryError(42208, f"Invalid subject: {GLOBAL} stands for all subjects.")
    _require_name(subject_name)


def _require_name(subject_name: str) -> None:
    if not 0 < len(subject_name) <= NAME_MAX_CHARS or not subject_name.isprintable():
        raise RegistryError(42208, f"Invalid subject: a name has 1 to {NAME_MAX_CHARS} printable characters.")


def lock_subject(subject_name: str) -> Subject | None:
    """Return a subject's row, locked until the transaction ends; None if it has to be created. Raises RegistryError."""
    subject = Subject.objects.select_for_update().filter(name=subject_name).first()
    if subject is None and Subject.objects.count() >= SUBJECTS_MAX:
        raise RegistryError(42205, f"There can be at most {SUBJECTS_MAX} subjects.")
    return subject


def _next_number(subject: Subject | None) -> int:
    """Return the number of the next version; numbers are not reused. Raises RegistryError if there are too many."""
    if subject is None:
        return 1
    require_room(subject)
    return int(subject.versions.aggregate(last=Max("version"))["last"] or 0) + 1


def require_room(subject: Subject) -> None:
    """Raise RegistryError if a subject has as many versions as it may have."""
    if subject.versions.count() >= VERSIONS_MAX:
        raise RegistryError(42205, f"A subject can have at most {VERSIONS_MAX} versions; delete some permanently.")


def _latest_document(number: int, schema: Schema) -> dict[str, Any]:
    """Return a version as in the snapshot."""
    return {
        "version": number,
        "id": schema.pk,
        "type": schema.type,
        "schema": schema.text,
        "references": [list(pair) for pair in resolve_references(schema.references)],
    }


def _require_unused(subject: Subject, numbers: list[int]) -> None:
    """Raise RegistryError if another schema references one of these versions, or a channel would lose its schema."""
    for schema in Schema.objects.exclude(references=[]).filter(versions__isnull=False).distinct():
        for reference in schema.references:
            if reference["subject"] == subject.name and reference["version"] in numbers:
                raise RegistryError(42206, f"One or more references exist to a schema of {subject.name}.")
    if live(subject).exclude(version__in=numbers).exists():
        return
    for channel in Channel.objects.exclude(schema=None):
        if subject_named(channel.schema) == subject.name:
            raise RegistryError(42206, f"A channel validates its events by {subject.name}.")
