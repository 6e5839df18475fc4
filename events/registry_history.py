"""Take over versions from another registry as they are there: with their numbers and ids, without comparing them."""

from __future__ import annotations

from django.db import transaction

from audit import recording
from events import registry
from events.models import SchemaVersion, Subject
from events.registry_ids import schema_row
from events.registry_schemas import RegistryError, SubmittedSchema


def take_over(
    subject_name: str,
    schema: SubmittedSchema,
    *,
    version: int,
    schema_id: int | None = None,
    is_deleted: bool = False,
    is_new_subject: bool = False,
    by: str,
) -> None:
    """Make a version of a subject what it is elsewhere, unless it is so. Raises RegistryError.

    The history of a new subject is taken as it is, and so is a version before the latest one. What comes after the
    latest version of another subject is registered, and so has to be compatible with it. The caller refreshes the
    subject when it has all of its versions (:func:`events.registry.refresh`).
    """
    registry.require_subject(subject_name)
    present = SchemaVersion.objects.select_related("schema", "subject").filter(subject__name=subject_name)
    row = present.filter(version=version).first()
    if row is not None:
        _require_equal(row, schema, schema_id)
        _set_deleted(row, is_deleted, by)
    elif is_new_subject or is_deleted or present.filter(version__gt=version).exists():
        _insert(subject_name, schema, version, schema_id, is_deleted, by)
    else:
        registry.register(subject_name, schema, version=version, schema_id=schema_id, by=by)


def _require_equal(row: SchemaVersion, schema: SubmittedSchema, schema_id: int | None) -> None:
    if row.schema.digest not in schema.digests:
        raise RegistryError(
            42205,
            f"Version {row.version} of {row.subject.name} is another schema here, and a version never changes. "
            "Leave out `version` and `id` to register this one as the next version.",
        )
    if schema_id not in (None, row.schema_id):
        raise RegistryError(
            42205,
            f"Version {row.version} of {row.subject.name} has the id {row.schema_id} here, not {schema_id}. "
            "Leave out `id` to keep it.",
        )


def _set_deleted(row: SchemaVersion, is_deleted: bool, by: str) -> None:
    if is_deleted and not row.is_deleted:
        registry.hide([row], row.subject, by=by)
    elif row.is_deleted and not is_deleted:
        registry.require_writable(row.subject.name)
        row.is_deleted = False
        row.save(update_fields=["is_deleted"])


def _insert(
    subject_name: str, schema: SubmittedSchema, version: int, schema_id: int | None, is_deleted: bool, by: str
) -> None:
    registry.require_writable(subject_name)
    with transaction.atomic():
        subject = registry.lock_subject(subject_name)
        if subject is None:
            subject = recording.create("schema", Subject(name=subject_name), subject_name, by=by)
        registry.require_room(subject)
        row = schema_row(schema, schema_id)
        SchemaVersion.objects.create(subject=subject, version=version, schema=row, is_deleted=is_deleted)
