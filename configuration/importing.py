"""Import a document of another tool: create or update the objects that it describes."""

from __future__ import annotations

from pathlib import Path

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.diff import Diff
from audit.locks import lock_configuration
from configuration.apply import document_error
from configuration.bulk_rows import Statement
from configuration.importers import asyncapi, openapi, swagger, zuplo
from configuration.importers.imported import Imported
from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.origins import Origin
from configuration.rehearsal import rehearsal
from configuration.rows import GatheredRows, Rows, SavedRows
from configuration.staging import staged
from configuration.writing import Writer
from configuration.yaml_documents import Document, read
from gateway.snapshot.right import Right
from gateway.snapshot.scopes import is_covered
from keys import services as keys
from keys.models import Key
from routes.models import Route

DEFAULTS = Options()


def import_file(
    path: str | Path,
    *,
    policies: str | Path = "",
    folder: str | Path = "",
    options: Options = DEFAULTS,
    report: Report | None = None,
    key_id: str = "",
    by: str,
    dry_run: bool = False,
) -> Diff:
    """Import a file, or ``-``: OpenAPI 3, with ``x-zuplo-route`` or without, or AsyncAPI. Raises DocumentError.

    ``policies`` is the ``policies.json`` of a Zuplo project, with the options of its policies; the one beside the
    document is read by default. ``folder`` is where the files that the document refers to are read: by default the one
    that it lies in, or the project for a document in the folder ``config`` of a Zuplo project.
    """
    document = read(path)
    if document.file and zuplo.is_zuplo(document.data):
        beside, parent = document.file.with_name(zuplo.POLICIES_FILE), document.file.resolve().parent
        if not policies and "policies" not in document.data and beside.is_file():
            policies = beside
        if parent.name == zuplo.FOLDER:
            document.folder = parent.parent
    if folder:
        document.folder = Path(folder)
    definitions = read(policies) if policies else None
    return import_document(
        document, policies=definitions, options=options, report=report, key_id=key_id, by=by, dry_run=dry_run
    )


def import_document(
    document: Document,
    *,
    policies: Document | None = None,
    options: Options = DEFAULTS,
    report: Report | None = None,
    key_id: str = "",
    by: str,
    dry_run: bool = False,
) -> Diff:
    """Import a parsed document in one transaction and return what has changed. Raises DocumentError.

    What means nothing here is added to the report. Fields that the document does not determine are left unchanged.
    ``key_id`` is a key that also gets the scopes that the operations of an AsyncAPI document need. Everything is read
    from the document before the transaction begins.
    """
    report = Report() if report is None else report
    described = described_objects(document, policies, options, report)

    rights = _rights(document, options) if key_id else []

    def write(rows: Rows) -> Diff:
        diff = Diff()
        writer = Writer(document, Origin.of(document, options), rows, diff, report, by=by)
        writer.write(described)
        report.require_none(is_strict=options.is_strict)
        writer.require_some()
        if openapi.is_export(document.data):
            _require_routes(document)
        if key_id:
            _add_scopes(document, rights, key_id, diff, by)
        return diff

    def prepare() -> tuple[Diff, list[Statement]]:
        rows = GatheredRows()
        return write(rows), rows.statements()

    if key_id or any(imported.registered for imported in described):
        # The registry and keys are read and written by their services.
        with rehearsal(dry_run), transaction.atomic():
            lock_configuration()
            return write(SavedRows())
    return prepare()[0] if dry_run else staged(prepare)


def described_objects(
    document: Document, policies: Document | None = None, options: Options = DEFAULTS, report: Report | None = None
) -> list[Imported]:
    """Return the objects that a document describes. Raises DocumentError if there are none."""
    data, report = document.data, Report() if report is None else report
    if asyncapi.is_asyncapi(data):
        return asyncapi.channels(document, options, report)
    if zuplo.is_zuplo(data):
        return zuplo.routes(document, policies, options, report)
    if openapi.is_openapi(data):
        return openapi.routes(document, options, report)
    if swagger.is_swagger(data):
        return openapi.routes(swagger.as_openapi(document), options, report)
    raise document.error("must be OpenAPI 3, Swagger 2, AsyncAPI 2.x or 3.x, or paths with x-zuplo-route")


def _require_routes(document: Document) -> None:
    """Raise DocumentError for an OpenAPI document of a gateway with unknown routes: it omits their upstreams."""
    names = set(Route.objects.values_list("name", flat=True))
    for name, path in openapi.generated_routes(document):
        if name not in names:
            raise document.error(
                f"the route {name} of another gateway cannot be imported from this document, which omits the upstream; "
                "use `manage.py export` there",
                *path,
            )


def _rights(document: Document, options: Options) -> list[Right]:
    if not asyncapi.is_asyncapi(document.data):
        raise document.error("only an AsyncAPI document determines the scopes of a key")
    return asyncapi.rights(document, options)


def _add_scopes(document: Document, rights: list[Right], key_id: str, diff: Diff, by: str) -> None:
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None:
        raise document.error(f"there is no key {key_id}, which would get the scopes of its operations")
    scopes = tuple(key.scopes)
    missing = [right.text for right in rights if not is_covered(scopes, right.text)]
    if not missing:
        return
    before = key.representation()
    try:
        key = keys.update_key(key, scopes=[*key.scopes, *missing], by=by)
    except ValidationError as error:
        raise document_error(document, error, f"key {key_id}", "operations") from None
    diff.add("key", key_id, before, key.representation())
