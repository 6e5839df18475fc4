"""Import a document of another tool: create or update the objects that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.diff import Diff
from audit.locks import lock_configuration
from configuration.apply import document_error, put
from configuration.importers import asyncapi, openapi, zuplo
from configuration.importers.imported import Imported, RegisteredSchema
from configuration.kinds import CHANNEL, ISSUER, ROUTE
from configuration.yaml_documents import Document, read
from events import registry
from events.models import Channel
from events.registry_schemas import RegistryError, parse_submitted
from gateway.schemas.registered import subject_named
from gateway.snapshot.scopes import is_covered
from keys import services as keys
from keys.models import Key
from routes import validation
from routes.models import Route

_KINDS = {"channels": CHANNEL, "routes": ROUTE, "issuers": ISSUER}


def import_file(
    path: str | Path, *, policies: str | Path = "", key_id: str = "", by: str, dry_run: bool = False
) -> Diff:
    """Import a file: OpenAPI 3, with ``x-zuplo-route`` or without, or AsyncAPI. Raises DocumentError.

    ``policies`` is the ``policies.json`` of a Zuplo project, with the options of its policies.
    """
    definitions = read(policies) if policies else None
    return import_document(read(path), policies=definitions, key_id=key_id, by=by, dry_run=dry_run)


def import_document(
    document: Document, *, policies: Document | None = None, key_id: str = "", by: str, dry_run: bool = False
) -> Diff:
    """Import a parsed document in one transaction and return what has changed. Raises DocumentError.

    Fields that the document does not determine are left unchanged. ``key_id`` is a key that also gets the scopes that
    the operations of an AsyncAPI document need.
    """
    diff = Diff()
    with transaction.atomic():
        lock_configuration()
        for imported in described_objects(document, policies):
            _import(document, imported, diff, by)
        if openapi.is_export(document.data):
            _require_routes(document)
        if key_id:
            _add_scopes(document, key_id, diff, by)
        if dry_run:
            transaction.set_rollback(True)
    return diff


def described_objects(document: Document, policies: Document | None = None) -> list[Imported]:
    """Return the objects that a document describes. Raises DocumentError."""
    data = document.data
    if asyncapi.is_asyncapi(data):
        return asyncapi.channels(document)
    if zuplo.is_zuplo(data):
        return zuplo.routes(document, policies)
    if openapi.is_openapi(data):
        return openapi.routes(document)
    raise document.error("must be OpenAPI 3, AsyncAPI 2.6 or 3.x, or paths with x-zuplo-route")


def _import(document: Document, imported: Imported, diff: Diff, by: str) -> None:
    kind = _KINDS[imported.section]
    values = dict(imported.values)
    if kind is ROUTE:
        values["name"] = _existing_name(values)
    name = values[kind.identity]
    try:
        if imported.registered is not None:
            _register(values, imported.registered, diff, by)
        before, after = put(kind, values, keep=True, by=by)
    except ValidationError as error:
        raise document_error(document, error, f"{kind.kind} {name}", *imported.path) from None
    diff.add(kind.kind, name, before, after if before is not None else kind.without_defaults(after))


def _register(values: dict[str, Any], registered: RegisteredSchema, diff: Diff, by: str) -> None:
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
        registry.register(subject, schema, by=by)
    except RegistryError as error:
        raise ValidationError({"schema": error.message}) from None
    diff.add("schema", subject, before, registry.latest_of(subject))


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


def _add_scopes(document: Document, key_id: str, diff: Diff, by: str) -> None:
    if not asyncapi.is_asyncapi(document.data):
        raise document.error("only an AsyncAPI document determines the scopes of a key")
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None:
        raise document.error(f"there is no key {key_id}, which would get the scopes of its operations")
    scopes = tuple(key.scopes)
    missing = [right.text for right in asyncapi.rights(document) if not is_covered(scopes, right.text)]
    if not missing:
        return
    before = key.representation()
    try:
        key = keys.update_key(key, scopes=[*key.scopes, *missing], by=by)
    except ValidationError as error:
        raise document_error(document, error, f"key {key_id}", "operations") from None
    diff.add("key", key_id, before, key.representation())


def _existing_name(values: dict[str, Any]) -> str:
    """Return the name of the route to update: with the same name, or else with the same path, transport and method."""
    name: str = values["name"]
    if Route.objects.filter(name=name).exists():
        return name
    transport = validation.transport_of(values["protocol"])
    for route in Route.objects.filter(path=values["path"]).only("name", "protocol", "methods"):
        if validation.transport_of(route.protocol) == transport and set(route.methods) & set(values["methods"]):
            return route.name
    return name
