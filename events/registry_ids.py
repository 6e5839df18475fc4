"""The ids of schemas: each schema has one, and a schema from elsewhere keeps its own, as stored events contain it."""

from __future__ import annotations

from django.db import connection

from events.models import Schema
from events.registry_schemas import RegistryError, SubmittedSchema

ID_MAX = 2**31 - 1
"""Events contain an id in four bytes."""


def schema_row(schema: SubmittedSchema, schema_id: int | None = None) -> Schema:
    """Return the row of a schema, which is created with an id of its own, or with this one.

    Raises RegistryError if the schema has another id, or the id another schema.
    """
    if (conflict := find_conflict(schema, schema_id)) is not None:
        raise RegistryError(42205, f"The schema cannot have the id {schema_id}: {conflict}.")
    own = {} if schema_id is None else {"pk": schema_id}
    fields = {"type": schema.type, "text": schema.text, "references": schema.references, "extra": schema.extra}
    row, is_new = Schema.objects.get_or_create(digest=schema.digest, defaults=own | fields)
    if is_new and schema_id is not None:
        _skip_ids(schema_id)
    return row


def find_conflict(schema: SubmittedSchema, schema_id: int | None) -> str | None:
    """Return why a schema cannot have an id; None if it can."""
    if schema_id is None:
        return None
    existing = Schema.objects.filter(digest=schema.digest).first()
    if existing is not None:
        return None if existing.pk == schema_id else f"it is registered here with the id {existing.pk}"
    return "another schema has it here" if Schema.objects.filter(pk=schema_id).exists() else None


def _skip_ids(last: int) -> None:
    """Let the next id be greater than this one. SQLite does so by itself."""
    if connection.vendor == "postgresql":
        table = connection.ops.quote_name(Schema._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT setval(name, GREATEST(nextval(name), %s)) FROM pg_get_serial_sequence(%s, 'id') AS name",
                (last, table),
            )
