"""Write the objects of an imported document, each known by the document that it was made from."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.configured import Configured
from audit.diff import Diff
from configuration.apply import document_error
from configuration.importers.imported import Imported, RegisteredSchema
from configuration.importers.openapi import is_export
from configuration.importers.report import Report
from configuration.kinds import CHANNEL, ISSUER, ROUTE, Kind
from configuration.origins import Origin
from configuration.rows import Rows, Written
from configuration.yaml_documents import Document, DocumentError
from events import registry
from events.models import Channel
from events.registry_ids import find_conflict
from events.registry_schemas import RegistryError, SubmittedSchema, parse_submitted
from gateway.policies.placeholder import PLACEHOLDER
from gateway.schemas.registered import subject_named
from routes.models import Route
from routes.validation import clean_methods
from routes.validation import shape_of as route_shape_of

_KINDS = {"channels": CHANNEL, "routes": ROUTE, "issuers": ISSUER}


class Writer:
    """Creates and updates objects in the current transaction; what cannot be written is added to the report."""

    def __init__(self, document: Document, origin: Origin, rows: Rows, diff: Diff, report: Report, *, by: str) -> None:
        self._document = document
        self._origin = origin
        self._rows = rows
        self._diff = diff
        self._report = report
        self._by = by
        self._done: set[tuple[str, str]] = set()
        self._own_names = frozenset({"", origin.name})

    def write(self, described: list[Imported]) -> None:
        """Create or update the objects, unless another document made them."""
        names = [self._recorded_name(imported) for imported in described if imported.section != ISSUER.section]
        self._own_names |= {self._origin.former(names, self._rows.origins())}
        for imported in described:
            self._write(imported)

    def _recorded_name(self, imported: Imported) -> str:
        """Return the document that an object records which is the same as a described one; empty if there is none."""
        kind, values = _KINDS[imported.section], imported.values
        existing: Any = self._rows.named(kind, values[kind.identity])
        is_same = existing is not None and (kind is CHANNEL or _is_same_route(existing, values))
        return str(existing.imported_from) if is_same else ""

    def _write(self, imported: Imported) -> None:
        kind, values = _KINDS[imported.section], dict(imported.values)
        existing = self._existing(kind, values)
        what = f"{kind.kind} {values[kind.identity]}"
        try:
            if existing is not None:
                self._require_own(existing, kind, values, imported)
                values[kind.identity] = getattr(existing, kind.identity)
            self._put(kind, values, existing, imported)
        except _BelongsToAnother as conflict:
            self._report.add_conflict(self._document.error(f"{what}: {conflict}", *imported.path))
        except ValidationError as error:
            self._report.skip(document_error(self._document, error, what, *imported.path))

    def require_some(self) -> None:
        """Raise DocumentError with what was skipped if nothing was written, and something should have been."""
        if not self._done and self._report.skipped:
            raise DocumentError("\n".join(self._report.skipped))

    def _existing(self, kind: Kind, values: dict[str, Any]) -> Configured | None:
        """Return the object to update: of the same name, or else one that the new object would collide with."""
        row = self._rows.named(kind, values[kind.identity])
        if row is not None or kind is not ROUTE:
            return row
        try:
            methods = clean_methods(values["methods"], values["protocol"])
        except ValidationError:
            return None
        rivals = self._rows.rivals(Route(path=values["path"], protocol=values["protocol"], methods=methods))
        return rivals[0] if rivals else None

    def _require_own(self, existing: Any, kind: Kind, values: dict[str, Any], imported: Imported) -> None:
        """Raise _BelongsToAnother for an object of another document, or ValidationError for one written already."""
        name = getattr(existing, kind.identity)
        if (kind.kind, name) in self._done:
            raise ValidationError(f"The document describes the {kind.kind} {name} twice.")
        if kind is ISSUER or is_export(self._document.data):
            return
        if existing.imported_from not in self._own_names:
            own = self._origin.name or "one without a title"
            raise _BelongsToAnother(
                f"the {kind.kind} {name} was made from {existing.imported_from}, and this document is {own}; "
                "import it under a --prefix, or name it with --document if it is the same one"
            )
        if (
            kind is ROUTE
            and not existing.imported_from
            and route_shape_of(existing.path) != route_shape_of(values["path"])
        ):
            raise _BelongsToAnother(
                f"a route of this name, which no import made, serves {existing.path}; import under a --prefix"
            )

    def _put(self, kind: Kind, values: dict[str, Any], existing: Any, imported: Imported) -> None:
        if kind is ROUTE and existing is not None and existing.imported_from:
            _keep_replaced(existing, values)
        if kind is not ISSUER and self._origin.name:
            values["imported_from"] = self._origin.name
        if imported.registered is None:
            before, after = self._written(kind, values, imported)
        else:
            with transaction.atomic():
                self._register(values, imported.registered, imported)
                before, after = self._rows.put(kind, values, by=self._by)
        name = values[kind.identity]
        self._done.add((kind.kind, name))
        self._diff.add(kind.kind, name, before, after if before is not None else kind.without_defaults(after))

    def _written(self, kind: Kind, values: dict[str, Any], imported: Imported) -> Written:
        try:
            return self._rows.put(kind, values, by=self._by)
        except ValidationError as error:
            if kind is not CHANNEL or "schema" not in getattr(error, "error_dict", {}):
                raise
            self._skip_schema(values, error, imported)
            return self._rows.put(kind, values, by=self._by)

    def _skip_schema(self, values: dict[str, Any], error: ValidationError, imported: Imported) -> None:
        values["schema"] = None
        what = f"channel {values['address']} is imported without its schema"
        self._report.skip(document_error(self._document, error, what, *imported.path))

    def _register(self, values: dict[str, Any], registered: RegisteredSchema, imported: Imported) -> None:
        """Register the schema of a channel's events as the latest version of its subject. Raises ValidationError."""
        channel = Channel.objects.filter(address=values["address"]).first()
        current_subject = subject_named(channel.schema) if channel is not None else ""
        if current_subject and not registered.is_named:
            values["schema"] = {"subject": current_subject}
        subject = subject_named(values["schema"])
        before = registry.latest_of(subject)
        if not subject or (before is not None and registered.is_named):
            return
        try:
            schema = parse_submitted({"schema": registered.text, "schemaType": registered.type})
            schema_id = self._free_id(subject, schema, registered, imported)
            registry.register(subject, schema, version=registered.version, schema_id=schema_id, by=self._by)
            if registered.settings:
                registry.configure(subject, by=self._by, **registered.settings)
        except RegistryError as error:
            raise ValidationError({"schema": error.message}) from None
        self._diff.add("schema", subject, before, registry.latest_of(subject))

    def _free_id(
        self, subject: str, schema: SubmittedSchema, registered: RegisteredSchema, imported: Imported
    ) -> int | None:
        """Return the id that a schema has in the document; None, which is reported, if it cannot have it here."""
        conflict = find_conflict(schema, registered.id)
        if conflict is None:
            return registered.id
        line = f"the schema {subject} does not keep its id {registered.id}: {conflict}"
        self._report.skip(self._document.error(line, *imported.path))
        return None


class _BelongsToAnother(Exception):
    """The object was made from another document, or by hand for another path."""


def _keep_replaced(existing: Any, values: dict[str, Any]) -> None:
    """Leave out what an operator has put in place of a placeholder since the last import."""
    current, wanted = _placeholders(existing.policies), _placeholders(values.get("policies", []))
    if wanted - current:
        del values["policies"]
    if values["handler"]["type"] == PLACEHOLDER != existing.handler["type"]:
        del values["handler"]


def _is_same_route(route: Any, values: dict[str, Any]) -> bool:
    return bool(route.shape == route_shape_of(values["path"]) and route.handler == values["handler"])


def _placeholders(policies: list[dict[str, Any]]) -> set[str]:
    return {policy["options"]["name"] for policy in policies if policy["type"] == PLACEHOLDER}
