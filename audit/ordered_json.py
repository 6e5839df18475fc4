"""JSON columns that keep the order of members on every database, and the comparison that sees this order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AlterField
from django.db.migrations.state import ProjectState

_POSTGRESQL = "postgresql"


class OrderedJSONField(models.JSONField):
    """JSON that is returned with its members in the order in which they were stored.

    Its column is text on every database: PostgreSQL's ``jsonb`` sorts members, and its ``json`` has no equality, which
    ``distinct()`` and comparisons need. So values are compared as texts, and lookups by member or path are refused.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the type of the column."""
        return "text" if connection.vendor == _POSTGRESQL else super().db_type(connection)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Return the value as it is stored."""
        return json.dumps(value if prepared else self.get_prep_value(value), cls=self.encoder)

    def get_transform(self, name: str) -> Any:
        """Return a registered transform; members of the document are no transforms, as they are of ``JSONField``."""
        return models.Field.get_transform(self, name)


class KeepOrder(AlterField):
    """Makes a ``JSONField`` an :class:`OrderedJSONField`: in place, and without touching SQLite, where both are text.

    On PostgreSQL the values keep the order that ``jsonb`` gave them.
    """

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Change the type of the column on PostgreSQL."""
        if schema_editor.connection.vendor != _POSTGRESQL:
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        field = model._meta.get_field(self.name)
        table, column = map(schema_editor.quote_name, (model._meta.db_table, field.column))
        type_ = field.db_type(schema_editor.connection)
        # Django converts no value where both fields are of one kind, as it takes these to be.
        schema_editor.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_} USING {column}::{type_}")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; two documents, if their members have the same order, too."""
    return bool(one == other) and (not isinstance(one, dict | list) or json.dumps(one) == json.dumps(other))


def is_same_record(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Return whether two records or representations have the same values, in whatever order their fields are."""
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
