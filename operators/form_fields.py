"""Form fields and widgets of the admin for JSON columns: lists of strings, tables of objects, and free JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import INPUT_CLASSES, SELECT_CLASSES, UnfoldAdminTextareaWidget

from gateway.refusals import Refused
from gateway.wire.strict_json import parse

ROWS_MAX = 60
BLANK_ROWS = 1
_NARROW = frozenset({"max-w-2xl", "w-full"})


class LinesField(forms.CharField):
    """A list of strings, one per line."""

    def __init__(self, *, placeholder: str = "", rows: int = 4, **options: Any) -> None:
        widget = UnfoldAdminTextareaWidget({"rows": rows, "placeholder": placeholder, "class": "font-mono"})
        super().__init__(widget=widget, **{"required": False, **options})

    def prepare_value(self, value: Any) -> Any:
        """Return a list as lines."""
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        """Return the lines that are not empty."""
        return [line.strip() for line in super().clean(value).splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the submitted lines differ from the shown ones."""
        return (initial or []) != [line.strip() for line in (data or "").splitlines() if line.strip()]


class JsonField(forms.CharField):
    """Free JSON, parsed strictly; an empty field has the value that ``empty`` returns."""

    def __init__(self, *, empty: Callable[[], Any], rows: int = 8, **options: Any) -> None:
        self._empty = empty
        widget = UnfoldAdminTextareaWidget({"rows": rows, "class": "font-mono", "spellcheck": "false"})
        super().__init__(widget=widget, **{"required": False, "strip": True, **options})

    def prepare_value(self, value: Any) -> Any:
        """Return the value as indented JSON."""
        if isinstance(value, str):
            return value
        return json.dumps(value, indent=2, ensure_ascii=False) if value else ""

    def clean(self, value: Any) -> Any:
        """Return the parsed value. Raises ValidationError."""
        return _json(super().clean(value)) if value and value.strip() else self._empty()

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the submitted value differs from the shown one, if only in the order of its members."""
        try:
            return json.dumps(self.clean(data)) != json.dumps(initial if initial is not None else self._empty())
        except ValidationError:
            return True


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: a member of its objects."""

    name: str
    label: str
    choices: tuple[str, ...] = ()
    """The allowed values, if limited; the first is the default of a new row."""
    is_json: bool = False
    is_number: bool = False
    """A number is parsed; other text is passed to the service, which refuses it."""
    placeholder: str = ""


class RowsWidget(forms.Widget):
    """A table with a row for each object and an empty one; a script adds further rows."""

    template_name = "operators/rows.html"

    class Media:
        js = ("operators/rows.js",)

    def __init__(self, columns: Sequence[Column], noun: str) -> None:
        super().__init__()
        self.columns = columns
        self.noun = noun

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Return the context of the template, with the cells of every row."""
        rows = [*(value or []), *({} for _ in range(BLANK_ROWS))]
        context = super().get_context(name, None, attrs)
        context["widget"] |= {
            "columns": self.columns,
            "noun": self.noun,
            "rows": [
                [self._cell(f"{name}-{number}", column, row) for column in self.columns]
                for number, row in enumerate(rows)
            ],
            "total": len(rows),
        }
        return context

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[dict[str, str]]:
        """Return the rows whose first cell is not empty."""
        total = str(data.get(f"{name}-total", "0"))
        count = min(int(total), ROWS_MAX) if total.isascii() and total.isdigit() and len(total) < 6 else 0
        rows = [
            {column.name: str(data.get(f"{name}-{number}-{column.name}", "")).strip() for column in self.columns}
            for number in range(count)
        ]
        return [row for row in rows if row[self.columns[0].name]]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return whether the form was submitted without the table."""
        return f"{name}-total" not in data

    def _cell(self, prefix: str, column: Column, row: Mapping[str, Any]) -> dict[str, Any]:
        value = row.get(column.name)
        if column.is_json and not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False) if value else ""
        classes = [name for name in (SELECT_CLASSES if column.choices else INPUT_CLASSES) if name not in _NARROW]
        return {
            "name": f"{prefix}-{column.name}",
            "value": "" if value is None else str(value),
            "column": column,
            "class": " ".join([*classes, "w-full"]),
        }


class RowsField(forms.Field):
    """A list of small objects, edited as a table."""

    def __init__(self, columns: Sequence[Column], *, noun: str, **options: Any) -> None:
        self._columns = columns
        super().__init__(widget=RowsWidget(columns, noun), **{"required": False, **options})

    def clean(self, value: Any) -> list[dict[str, Any]]:
        """Return the objects. Raises ValidationError for a cell with invalid JSON."""
        return [self._read(row) for row in value or []]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the submitted rows differ from the shown ones."""
        try:
            return list(map(_comparable, initial or [])) != list(map(_comparable, self.clean(data)))
        except ValidationError:
            return True

    def _read(self, row: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for column in self._columns:
            text = row.get(column.name, "")
            if text:
                values[column.name] = _json(text) if column.is_json else _number(text) if column.is_number else text
        return values


def _comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row that are not empty; documents as text, as their members have an order."""
    cells = {name: value for name, value in row.items() if value not in (None, "", {})}
    return {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in cells.items()}


def _json(text: str) -> Any:
    try:
        return parse(text)
    except Refused as refused:
        raise ValidationError(refused.detail) from None


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
