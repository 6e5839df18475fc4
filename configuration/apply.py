"""Apply a document to the configuration, in one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.diff import Diff
from audit.locks import lock_configuration
from configuration import registry_faults
from configuration.kinds import CHANNEL, CONSUMER, ISSUER, KINDS, REQUIRED, ROUTE, TIER, Kind
from configuration.registry_section import Section
from configuration.rehearsal import rehearsal
from configuration.yaml_documents import Document, DocumentError, parse, read

SECTIONS = (registry_faults.SECTION, *(kind.section for kind in KINDS))
_STEP = re.compile(r"[^.\[\]]+")


def apply_file(path: str | Path, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a file and return what has changed; ``prune`` deletes what its sections do not name.

    A dry run makes the same changes in a private copy, so it reports them exactly. Raises DocumentError.
    """
    return apply_document(read(path), by=by, prune=prune, dry_run=dry_run)


def apply_text(text: str, name: str, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a text as :func:`apply_file` does a file; errors refer to it by ``name``."""
    return apply_document(parse(text, name), by=by, prune=prune, dry_run=dry_run)


def apply_document(document: Document, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a parsed document. Raises DocumentError."""
    sections = _sections(document)
    diff = Diff()
    with rehearsal(dry_run), transaction.atomic():
        lock_configuration()
        # Free paths and addresses before other objects take them; delete a tier after its consumers have left it.
        if prune:
            for kind in (ROUTE, CHANNEL, CONSUMER):
                _prune(kind, sections, diff, document, by)
        _put_schemas(sections.get(registry_faults.SECTION, []), diff, document, by)
        for kind in KINDS:
            for number, values in enumerate(sections.get(kind.section, [])):
                _put(kind, values, number, diff, document, by)
        if prune:
            for kind in (TIER, ISSUER):
                _prune(kind, sections, diff, document, by)
    return diff


def put(
    kind: Kind, values: dict[str, Any], *, keep: bool = False, by: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Create or update one object and return it before and after. Raises ValidationError.

    Omitted fields are set to their defaults, or with ``keep`` are left unchanged.
    """
    row = kind.find(values[kind.identity])
    before = row.representation() if row is not None else None
    if row is None:
        row = kind.create(**kind.read(whole(kind, values)), by=by)
    else:
        changes = kind.read(values if keep else whole(kind, values))
        del changes[kind.identity]
        row = kind.update(row, **changes, by=by)
    return before, row.representation()


def whole(kind: Kind, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an object with the defaults of the fields that they omit."""
    return {name: default for name, default in kind.fields.items() if default is not REQUIRED} | values


def _sections(document: Document) -> dict[str, list[dict[str, Any]]]:
    if not isinstance(document.data, dict):
        raise document.error("must be a mapping of the sections " + ", ".join(SECTIONS))
    kinds = {kind.section: kind for kind in KINDS}
    for section, values in document.data.items():
        if section == registry_faults.SECTION:
            for message, path in registry_faults.faults(values):
                raise document.error(message, section, *path)
            continue
        if section not in kinds:
            raise document.error(f"unknown section {section}; the sections are {', '.join(SECTIONS)}", section)
        if not isinstance(values, list):
            raise document.error(f"{section} must be a list", section)
        for message, path in _errors(kinds[section], values):
            raise document.error(message, section, *path)
    return document.data


def _errors(kind: Kind, values: list[Any]) -> Iterator[tuple[str, list[str | int]]]:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            yield f"a {kind.kind} must be a mapping", [number]
            return
        for message, field in _object_errors(kind, value):
            yield message, [number, field]
        name = value[kind.identity]
        if name in seen:
            yield f"{kind.kind} {name} is defined twice", [number]
        seen.add(name)


def _object_errors(kind: Kind, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, member in value.items():
        if name not in kind.known_fields:
            yield f"unknown field {name}; the fields of a {kind.kind} are {', '.join(kind.known_fields)}", name
        elif (message := _value_error(kind, name, member)) is not None:
            yield message, name
    for name, default in kind.fields.items():
        if default is REQUIRED and name not in value:
            yield f"a {kind.kind} needs {name}", name


def _value_error(kind: Kind, name: str, value: Any) -> str | None:
    if value is None and kind.fields.get(name) is not None:
        return f"{name} is empty; leave it out for its default"
    type_ = str if name == kind.identity else kind.types.get(name, object)
    if not isinstance(value, type_):
        return f"{name} must be {'true or false' if type_ is bool else 'a string'}"
    return None


def _put_schemas(entries: list[dict[str, Any]], diff: Diff, document: Document, by: str) -> None:
    section = Section(entries, diff, by=by)
    for step in (section.loosen, section.put, section.settle):
        for number, entry in enumerate(entries):
            try:
                step(entry)
            except ValidationError as error:
                place = registry_faults.SECTION, number
                raise document_error(document, error, f"schema {entry['subject']}", *place) from None


def _put(kind: Kind, values: dict[str, Any], number: int, diff: Diff, document: Document, by: str) -> None:
    name = values[kind.identity]
    try:
        before, after = put(kind, values, by=by)
    except ValidationError as error:
        raise document_error(document, error, f"{kind.kind} {name}", kind.section, number) from None
    diff.add(kind.kind, name, before, after if before is not None else kind.without_defaults(after))


def _prune(kind: Kind, sections: dict[str, list[dict[str, Any]]], diff: Diff, document: Document, by: str) -> None:
    """Delete the objects that a section does not name; without the section, nothing of its kind is deleted."""
    if kind.section not in sections:
        return
    kept = {values[kind.identity] for values in sections[kind.section]}
    for row in kind.rows():
        name = getattr(row, kind.identity)
        if name in kept:
            continue
        before = row.representation()
        try:
            kind.delete(row, by=by)
        except ValidationError as error:
            raise document_error(document, error, f"{kind.kind} {name}", kind.section) from None
        diff.add(kind.kind, name, before, None)


def document_error(document: Document, error: ValidationError, what: str, *path: str | int) -> DocumentError:
    """Return the error of a service with the place of its field in the document."""
    if not hasattr(error, "error_dict"):
        return document.error(f"{what}: {' '.join(error.messages)}", *path)
    field, messages = next(iter(error.message_dict.items()))
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in _STEP.findall(field)]
    prefix = "" if field == "__all__" else f"{field}: "
    return document.error(f"{what}: {prefix}{' '.join(messages)}", *path, *steps)
