"""One way to create, change and delete what has a document: validated, saved and recorded in one transaction."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from django.core.exceptions import ValidationError
from django.db import models, transaction

from audit.services import Document, record


class Documented(Protocol):
    """A row that the snapshot knows."""

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot."""


Row = TypeVar("Row", bound=models.Model)


def create(kind: str, row: Row, name: str, *, note: str = "", by: str) -> Row:
    """Save a new row with its record. Raises ValidationError."""
    with transaction.atomic():
        row.full_clean()
        row.save(force_insert=True)
        record(kind, name, before=None, after=_document(row), note=note, by=by)
    return row


def update(kind: str, row: Row, name: str, changes: dict[str, Any], *, note: str = "", by: str) -> Row:
    """Change fields of a row with its record. Raises ValidationError, also for a field that it lacks."""
    known = {field.name for field in row._meta.fields}
    for field in changes:
        if field not in known:
            raise ValidationError({field: "Unknown field."})
    with transaction.atomic():
        stored = type(row)._default_manager.select_for_update().get(pk=row.pk)
        before = _document(stored)
        for field, value in changes.items():
            setattr(row, field, value)
        row.full_clean()
        row.save(update_fields=list(changes))
        record(kind, name, before=before, after=_document(row), note=note, by=by)
    return row


def delete(kind: str, row: models.Model, name: str, *, note: str = "", by: str) -> None:
    """Delete a row with its record. Raises ValidationError where something still needs it."""
    with transaction.atomic():
        before = _document(row)
        try:
            row.delete()
        except models.ProtectedError as error:
            first = next(iter(error.protected_objects))
            raise ValidationError(f"{name} is still used by {type(first).__name__.lower()} {first}.") from None
        record(kind, name, before=before, after=None, note=note, by=by)


def _document(row: Any) -> Document:
    document: Document = row.document()
    return document
