"""Making the configuration what a document says: all of it in one transaction, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.diff import Diff
from audit.locks import lock_configuration
from configuration.kinds import CHANNEL, CONSUMER, ISSUER, KINDS, REQUIRED, ROUTE, TIER, Kind
from configuration.yaml_documents import Document, DocumentError, parse, read

_STEP = re.compile(r"[^.\[\]]+")


def apply_file(path: str | Path, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a file; with ``prune`` what its sections do not name is deleted. Gives what has changed.

    A dry run makes the same changes and takes them back, so what it says is what will be. Raises DocumentError.
    """
    return apply_document(read(path), by=by, prune=prune, dry_run=dry_run)


def apply_text(text: str, name: str, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a text as :func:`apply_file` does a file; errors call it by the name."""
    return apply_document(parse(text, name), by=by, prune=prune, dry_run=dry_run)


def apply_document(document: Document, *, by: str, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply a document that has been read. Raises DocumentError."""
    wanted = _sections(document)
    diff = Diff()
    with transaction.atomic():
        lock_configuration()
        # Paths and addresses are given free before others take them; a tier goes when nobody has it any more.
        if prune:
            for kind in (ROUTE, CHANNEL, CONSUMER):
                _prune(kind, wanted, diff, document, by)
        for kind in KINDS:
            for number, values in enumerate(wanted.get(kind.section, [])):
                _put(kind, values, number, diff, document, by)
        if prune:
            for kind in (TIER, ISSUER):
                _prune(kind, wanted, diff, document, by)
        if dry_run:
            transaction.set_rollback(True)
    return diff


def put(
    kind: Kind, values: dict[str, Any], *, keep: bool = False, by: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Make one object what the values say; gives it before and after. Raises ValidationError.

    A field that the values lack becomes its default, or with ``keep`` stays as it is.
    """
    whole = {name: default for name, default in kind.fields.items() if default is not REQUIRED} | values
    name = whole[kind.identity]
    row = kind.find(name)
    before = row.representation() if row is not None else None
    if row is None:
        row = kind.create(**kind.read(whole), by=by)
    else:
        changes = kind.read(values if keep else whole)
        del changes[kind.identity]
        row = kind.update(row, **changes, by=by)
    return before, row.representation()


def _sections(document: Document) -> dict[str, list[dict[str, Any]]]:
    if not isinstance(document.data, dict):
        raise document.error("a configuration is a mapping of " + ", ".join(kind.section for kind in KINDS))
    kinds = {kind.section: kind for kind in KINDS}
    for section, values in document.data.items():
        if section not in kinds:
            raise document.error(f"unknown section {section}; there are {', '.join(kinds)}", section)
        if not isinstance(values, list):
            raise document.error(f"{section} is a list", section)
        for fault, path in _faults(kinds[section], values):
            raise document.error(fault, section, *path)
    return document.data


def _faults(kind: Kind, values: list[Any]) -> Iterator[tuple[str, list[str | int]]]:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            yield f"a {kind.kind} is a mapping", [number]
            return
        for fault, field in _object_faults(kind, value):
            yield fault, [number, field]
        name = value[kind.identity]
        if name in seen:
            yield f"{kind.kind} {name} is named twice", [number]
        seen.add(name)


def _object_faults(kind: Kind, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, given in value.items():
        if name not in kind.fields:
            yield f"unknown field {name}; a {kind.kind} has {', '.join(kind.fields)}", name
        elif (fault := _value_fault(kind, name, given)) is not None:
            yield fault, name
    for name, default in kind.fields.items():
        if default is REQUIRED and name not in value:
            yield f"a {kind.kind} needs {name}", name


def _value_fault(kind: Kind, name: str, given: Any) -> str | None:
    if given is None and kind.fields[name] is not None:
        return f"{name} is empty; leave it out for its default"
    type_ = str if name == kind.identity else kind.types.get(name, object)
    if not isinstance(given, type_):
        return f"{name} must be {'true or false' if type_ is bool else 'a text'}"
    return None


def _put(kind: Kind, values: dict[str, Any], number: int, diff: Diff, document: Document, by: str) -> None:
    name = values[kind.identity]
    try:
        before, after = put(kind, values, by=by)
    except ValidationError as error:
        raise refused(document, error, f"{kind.kind} {name}", kind.section, number) from None
    diff.add(kind.kind, name, before, after if before is not None else kind.without_defaults(after))


def _prune(kind: Kind, wanted: dict[str, list[dict[str, Any]]], diff: Diff, document: Document, by: str) -> None:
    """Delete what a section does not name; a section that is left out says nothing, and nothing of it goes."""
    if kind.section not in wanted:
        return
    kept = {values[kind.identity] for values in wanted[kind.section]}
    for row in kind.rows():
        name = getattr(row, kind.identity)
        if name in kept:
            continue
        before = row.representation()
        try:
            kind.delete(row, by=by)
        except ValidationError as error:
            raise refused(document, error, f"{kind.kind} {name}", kind.section) from None
        diff.add(kind.kind, name, before, None)


def refused(document: Document, error: ValidationError, what: str, *path: str | int) -> DocumentError:
    """Say what a service refused, at the place of the field that it names."""
    if not hasattr(error, "error_dict"):
        return document.error(f"{what}: {' '.join(error.messages)}", *path)
    field, messages = next(iter(error.message_dict.items()))
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in _STEP.findall(field)]
    shown = "" if field == "__all__" else f"{field}: "
    return document.error(f"{what}: {shown}{' '.join(messages)}", *path, *steps)
