"""Create, update and delete rows: validated, saved and recorded in the audit log in one transaction."""

from __future__ import annotations

from typing import Any, TypeVar

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import IntegrityError, models, transaction

from audit.configured import Represented
from audit.services import record
from audit.storable import require_storable

Row = TypeVar("Row", bound=Represented)


def create(kind: str, row: Row, name: str, *, note: str = "", by: str) -> Row:
    """Insert a row and record it. Raises ValidationError."""
    with transaction.atomic():
        _save(row, force_insert=True)
        record(kind, name, before=None, after=row.recorded(), note=note, by=by)
    return row


def update(kind: str, row: Row, name: str, changes: dict[str, Any], *, note: str = "", by: str) -> Row:
    """Update fields of a row and record the change; concurrent changes of other fields are kept.

    Raises ValidationError, also for an unknown field and for a row that was deleted.
    """
    names = {field.name for field in row._meta.fields}
    for field in changes:
        if field not in names:
            raise ValidationError({field: "Unknown field."})
    with transaction.atomic():
        lock(row, name)
        before = row.recorded()
        for field, value in changes.items():
            setattr(row, field, value)
        _save(row, update_fields=list(changes))
        record(kind, name, before=before, after=row.recorded(), note=note, by=by)
    return row


def delete(kind: str, row: Represented, name: str, *, note: str = "", by: str) -> None:
    """Delete a row and record it. Raises ValidationError when another row refers to it, or it was deleted."""
    with transaction.atomic():
        lock(row, name)
        before = row.recorded()
        try:
            row.delete()
        except models.ProtectedError as error:
            first = next(iter(error.protected_objects))
            raise ValidationError(f"{name} is still used by {type(first).__name__.lower()} {first}.") from None
        record(kind, name, before=before, after=None, note=note, by=by)


def lock(row: models.Model, name: str) -> None:
    """Lock a row until the transaction ends, and reload it. Raises ValidationError if it was deleted."""
    try:
        row.refresh_from_db(from_queryset=type(row)._default_manager.select_for_update())
    except ObjectDoesNotExist:
        raise ValidationError(f"{name} does not exist any more: it was deleted meanwhile.") from None


def check_fields(row: models.Model) -> None:
    """Raise ValidationError for a field of a row that cannot be stored; other rows are not read."""
    row.full_clean(validate_unique=False, validate_constraints=False)
    require_storable(row)


def _save(row: models.Model, **options: Any) -> None:
    row.full_clean()
    require_storable(row)
    try:
        with transaction.atomic():
            row.save(**options)
    except IntegrityError:
        # Another transaction was faster: report what full_clean could not see.
        row.validate_unique()
        row.validate_constraints()
        raise
