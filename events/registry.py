"""Every change of the schema registry: versions registered, hidden, deleted; what new versions must be to old ones."""

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
from events.registry_schemas import Given, No, resolved
from gateway.refusals import Reason, Refused
from gateway.schemas.errors import TooComplex
from gateway.schemas.registered import Parsed, read, subject_named

GLOBAL = "*"
"""The name of the row that holds the default of all subjects; no schema is registered under it."""
NAME_MAX_CHARS = 255
VERSIONS_MAX = 1000
SUBJECTS_MAX = 10_000
DETAILS_MAX = 10
RIVALS_MAX = 10
"""Times that somebody else may change a subject while a schema is compared with its versions."""


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


def register(subject_name: str, schema: Given, *, by: str) -> SchemaVersion:
    """Make a schema the latest version of a subject; one that is a version already stays. Raises No.

    Schemas are compared before anything is held, as that may take a second; where somebody else was faster, again.
    """
    if subject_name == GLOBAL:
        raise No(42208, f"Invalid subject: {GLOBAL} stands for all of them.")
    _require_name(subject_name)
    for _ in range(RIVALS_MAX):
        before = _stand(subject_name)
        if (known := before.holding(schema)) is not None:
            return SchemaVersion.objects.select_related("schema", "subject").get(pk=known)
        require_writable(subject_name)
        _require_compatible(subject_name, schema)
        with transaction.atomic():
            subject = _held(subject_name)
            if _stand(subject_name) == before:
                return _registered(subject, subject_name, schema, by)
    raise Refused(Reason.OVERLOADED, "Others change the subject at the same time.", retry_after_s=1)


@dataclass(frozen=True, slots=True)
class Stand:
    """What a registration is decided by."""

    level: Compatibility
    mode: Mode
    versions: tuple[tuple[int, str], ...]
    """Those that are not deleted, the oldest first: their keys and the digests of their schemas."""

    def holding(self, schema: Given) -> int | None:
        """Find the latest version that is the same schema."""
        return next((key for key, digest in reversed(self.versions) if digest in schema.digests), None)


def _stand(subject_name: str) -> Stand:
    versions = SchemaVersion.objects.filter(subject__name=subject_name, is_deleted=False).order_by("version")
    return Stand(
        compatibility_of(subject_name), mode_of(subject_name), tuple(versions.values_list("pk", "schema__digest"))
    )


def _require_compatible(subject_name: str, schema: Given) -> None:
    subject = Subject.objects.filter(name=subject_name).first()
    faults = [] if subject is None else incompatible(subject_name, schema, live(subject))
    if faults:
        raise No(
            409,
            f'Schema being registered is incompatible with an earlier schema for subject "{subject_name}", '
            f"details: {'; '.join(faults)}",
            faults,
        )


def _registered(subject: Subject | None, subject_name: str, schema: Given, by: str) -> SchemaVersion:
    number = _next_number(subject)
    row, _ = Schema.objects.get_or_create(
        digest=schema.digest,
        defaults={
            "type": schema.type,
            "text": schema.text,
            "references": schema.references,
            "extra": schema.extra,
        },
    )
    told = {"latest": _told(number, row)}
    if subject is None:
        told["numbers"] = {"live": [number], "deleted": []}
        subject = recording.create("schema", Subject(name=subject_name, **told), subject_name, by=by)
        return SchemaVersion.objects.create(subject=subject, version=number, schema=row)
    version = SchemaVersion.objects.create(subject=subject, version=number, schema=row)
    recording.update("schema", subject, subject_name, told | _numbered(subject), by=by)
    return version


def _numbered(subject: Subject) -> dict[str, Any]:
    """Say which versions a subject has, for its record."""
    said: dict[str, list[int]] = {"live": [], "deleted": []}
    for number, is_deleted in subject.versions.order_by("version").values_list("version", "is_deleted"):
        said["deleted" if is_deleted else "live"].append(number)
    return {"numbers": said}


def require_writable(subject_name: str) -> None:
    """Raise No where nothing of a subject may change."""
    if mode_of(subject_name) is Mode.READONLY:
        raise No(42205, f"Subject {subject_name} is in read-only mode.")


def incompatible(subject_name: str, schema: Given, versions: Iterable[SchemaVersion]) -> list[str]:
    """Say why a schema does not fit to these versions of a subject, by its level; nothing where it does. Raises No."""
    level = compatibility_of(subject_name)
    if level is Compatibility.NONE:
        return []
    earlier = list(versions)
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
    old = read(version.schema.type, version.schema.text, resolved(version.schema.references))
    directions = []
    if level.is_backward:
        directions.append(("the new version cannot read version", new, old))
    if level.is_forward:
        directions.append(("data of the new version cannot be read by version", old, new))
    faults = ((said, _unread(reader, writer, budget)) for said, reader, writer in directions)
    return [f"{said} {version.version}: {fault}" for said, fault in faults if fault is not None]


def _unread(reader: Parsed, writer: Parsed, budget: Budget) -> Mismatch | None:
    if reader.node is not None and writer.node is not None:
        return find_avro_mismatch(reader.node, writer.node, budget)
    return find_json_mismatch(
        Document.of(reader.value, reader.others), Document.of(writer.value, writer.others), budget
    )


def hide(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Delete versions so that they can be had still, by whoever asks for deleted ones. Raises No.

    With the last of them a subject forgets its own level and mode.
    """
    numbers = [version.version for version in versions]
    require_writable(subject.name)
    _require_unused(subject, numbers)
    with transaction.atomic():
        subject.versions.filter(version__in=numbers).update(is_deleted=True)
        version = live(subject).last()
        told: dict[str, Any] = {"latest": None if version is None else _told(version.version, version.schema)}
        if version is None:
            told |= {"compatibility": "", "mode": ""}
        recording.update("schema", subject, subject.name, told | _numbered(subject), by=by)


def erase(versions: Iterable[SchemaVersion], subject: Subject, *, by: str) -> None:
    """Delete hidden versions for good, and the subject with its last one. Raises No."""
    numbers = [version.version for version in versions]
    require_writable(subject.name)
    _require_unused(subject, numbers)
    with transaction.atomic():
        gone = subject.versions.filter(version__in=numbers)
        schemas = [version.schema_id for version in gone]
        gone.delete()
        Schema.objects.filter(id__in=schemas, versions=None).delete()
        if subject.versions.exists():
            recording.update("schema", subject, subject.name, _numbered(subject), by=by)
        else:
            recording.delete("schema", subject, subject.name, by=by)


def configure(subject_name: str, *, by: str, **changes: str) -> None:
    """Set ``compatibility`` or ``mode`` of a subject, or with :data:`GLOBAL` of all; empty: the default again.

    Raises No.
    """
    _require_name(subject_name)
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


def latest_of(subject_name: str) -> dict[str, Any] | None:
    """Say which version of a subject is the latest, as the snapshot has it; None where there is none."""
    subject = Subject.objects.filter(name=subject_name).first()
    found: dict[str, Any] | None = None if subject is None else subject.latest
    return found


def latest(subject_name: str) -> Parsed | None:
    """Give the schema that events of a subject must be by now."""
    found = latest_of(subject_name)
    if found is None:
        return None
    return read(found["type"], found["schema"], [(name, text) for name, text in found["references"]])


def _setting(subject_name: str, field: str) -> str:
    own = dict(Subject.objects.filter(name__in=(subject_name, GLOBAL)).values_list("name", field))
    return own.get(subject_name) or own.get(GLOBAL) or ""


def _require_name(subject_name: str) -> None:
    if not 0 < len(subject_name) <= NAME_MAX_CHARS or not subject_name.isprintable():
        raise No(42208, f"Invalid subject: a name has 1 to {NAME_MAX_CHARS} printable characters.")


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
        "references": [list(pair) for pair in resolved(schema.references)],
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
