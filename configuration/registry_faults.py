"""What a document may have in its section ``schemas``, checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from events.registry import Compatibility, Mode
from events.registry_ids import ID_MAX

SECTION = "schemas"
FIELDS = (
    "subject", "type", "version", "id", "is_deleted", "compatibility", "mode", "schema", "text", "references",
    "metadata", "rule_set",
)  # fmt: skip
SETTINGS = {"compatibility": Compatibility, "mode": Mode}
"""The settings of a subject, each with its choices."""
_NUMBERS = {"version": 2**31 - 1, "id": ID_MAX}
_TEXTS = ("subject", "type", "text")


def faults(entries: Any) -> Iterator[tuple[str, list[str | int]]]:
    """Yield what is wrong with the section, with its place in the section."""
    if not isinstance(entries, list):
        yield f"{SECTION} must be a list", []
        return
    settings: dict[tuple[str, str], Any] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield "a schema must be a mapping", [number]
            continue
        for message, *path in (*_missing(entry), *_invalid(entry)):
            yield message, [number, *path]
        for name in SETTINGS.keys() & entry.keys():
            first = settings.setdefault((entry["subject"], name), entry[name])
            if first != entry[name]:
                yield f"another entry of {entry['subject']} has {first}", [number, name]


def _missing(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield which fields of an entry are missing or too many, and their names."""
    for name in entry:
        if name not in FIELDS:
            yield f"unknown field {name}; the fields of a schema are {', '.join(FIELDS)}", name
    if not entry.get("subject"):
        yield ("a schema needs subject",)
    if "schema" in entry and "text" in entry:
        yield "a schema is given as schema or as text, not as both", "text"
    if entry.get("is_deleted") and "version" not in entry:
        yield "a deleted version needs version", "is_deleted"


def _invalid(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield which fields of an entry have an invalid value, and their names."""
    for name, value in entry.items():
        if name in _TEXTS and not isinstance(value, str):
            yield f"{name} must be a string", name
        elif name in SETTINGS and value not in ["", *(each.value for each in SETTINGS[name])]:
            yield f"{name} must be one of {', '.join(SETTINGS[name])}", name
        elif name in _NUMBERS and not _is_number(value, _NUMBERS[name]):
            yield f"{name} must be a positive whole number", name
        elif name == "is_deleted" and not isinstance(value, bool):
            yield "is_deleted must be true or false", name


def _is_number(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest
