"""Insert or replace many rows by one statement whose values were prepared before, so that its transaction is short."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection, models

BATCH = 1_000


class Statement:
    """One statement for all rows of a model. Their primary keys are left to the database.

    A row of the same value in the field ``unique`` is replaced. Signals are not sent, and nothing is validated.
    """

    def __init__(self, model: type[models.Model], rows: Sequence[models.Model], *, unique: str = "") -> None:
        fields = [field for field in model._meta.concrete_fields if not field.primary_key]
        quote = connection.ops.quote_name
        columns = {field.name: quote(str(field.column)) for field in fields}
        table, values = quote(model._meta.db_table), ", ".join(["%s"] * len(fields))
        # The names are those of the models.
        self._sql = f"INSERT INTO {table} ({', '.join(columns.values())}) VALUES ({values})"  # noqa: S608
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
