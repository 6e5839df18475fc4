"""The forms in which a row leaves its table, each made from a list of fields that its model declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar

from django.db import models


class Represented(models.Model):
    """A row that the management API shows and that the audit log records."""

    identity: ClassVar[str] = "name"
    """The field by which people, the audit log and other rows' documents name the row."""
    represented: ClassVar[tuple[str, ...]]
    """The fields of its representation."""

    class Meta:
        abstract = True

    def representation(self) -> dict[str, Any]:
        """Return the row as the management API and YAML show it; instants are in RFC 3339."""
        return _values(self, self.represented, rfc3339)

    def recorded(self) -> dict[str, Any]:
        """Return the row as the audit log keeps it."""
        return self.representation()


class Configured(Represented):
    """A row of the configuration: its document is published to the data plane, and the audit log records all of it."""

    published: ClassVar[tuple[str, ...]]
    """The fields of its document in the snapshot."""
    recorded_only: ClassVar[tuple[str, ...]] = ()
    """The fields that the audit log records besides, and that the data plane does not receive."""

    class Meta:
        abstract = True

    def document(self) -> dict[str, Any]:
        """Return the document that is published to the data plane; instants are in Unix seconds."""
        return _values(self, self.published, datetime.timestamp)

    def recorded(self) -> dict[str, Any]:
        """Return the document with the fields that only the control plane needs."""
        return _values(self, (*self.published, *self.recorded_only), datetime.timestamp)


def rfc3339(instant: datetime) -> str:
    """Format an aware instant in UTC, with ``Z``."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _values(row: models.Model, names: Iterable[str], format_instant: Callable[[datetime], Any]) -> dict[str, Any]:
    foreign_keys = {field.name: field for field in row._meta.concrete_fields if isinstance(field, models.ForeignKey)}
    values = {}
    for name in names:
        value = _related_name(row, foreign_keys[name]) if name in foreign_keys else getattr(row, name)
        if isinstance(value, datetime):
            value = format_instant(value)
        values[name] = value.value if isinstance(value, Enum) else value
    return values


def _related_name(row: models.Model, field: models.ForeignKey[Any, Any]) -> Any:
    """Return the identity of the row that a foreign key points to; without a query where that is its primary key."""
    related_model: Any = field.related_model
    identity = related_model.identity
    if identity == field.target_field.name:
        return getattr(row, field.attname)
    related = getattr(row, field.name)
    return None if related is None else getattr(related, identity)
