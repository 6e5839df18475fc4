"""Insert or replace many rows by one statement: with values that were prepared before, or as a copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models
from django.db.backends.base.base import BaseDatabaseWrapper

BATCH = 1_000


class Statement:
    """One statement for all rows of a model. Their primary keys are left to the database.

    A row of the same value in the field ``unique`` is replaced. Signals are not sent, and nothing is validated.
    """

    def __init__(self, model: type[models.Model], rows: Sequence[models.Model], *, unique: str = "") -> None:
        fields = [field for field in model._meta.concrete_fields if not field.primary_key]
        quote = connection.ops.quote_name
        columns = {field.name: quote(str(field.column)) for field in fields}
        self._sql = _insertion(model, fields)
        if unique:
            replaced = ", ".join(f"{column} = EXCLUDED.{column}" for name, column in columns.items() if name != unique)
            self._sql += f" ON CONFLICT ({columns[unique]}) DO UPDATE SET {replaced}"
        self._values = [
            [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields] for row in rows
        ]

    def execute(self) -> None:
        """Write the rows, in their order, in the current transaction."""
        with connection.cursor() as cursor:
            for start in range(0, len(self._values), BATCH):
                cursor.executemany(self._sql, self._values[start : start + BATCH])


def insert_unchanged(database: BaseDatabaseWrapper, model: type[models.Model], rows: Iterable[models.Model]) -> None:
    """Insert rows into a database with all of their values: primary keys and instants of their creation, too."""
    fields = model._meta.concrete_fields
    values = [[field.get_db_prep_save(getattr(row, field.attname), database) for field in fields] for row in rows]
    with database.cursor() as cursor:
        cursor.executemany(_insertion(model, fields), values)


def _insertion(model: type[models.Model], fields: Sequence[models.Field[Any, Any]]) -> str:
    quote = connection.ops.quote_name
    columns, values = (quote(str(field.column)) for field in fields), ", ".join(["%s"] * len(fields))
    # The names are those of the models.
    return f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608
