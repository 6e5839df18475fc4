"""Bringing a document of another tool in: what it describes is made, or brought up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit.diff import Diff
from audit.locks import lock_configuration
from configuration.apply import put, refused
from configuration.importers import asyncapi, openapi, zuplo
from configuration.importers.imported import Imported, RegisteredSchema
from configuration.kinds import CHANNEL, ISSUER, ROUTE
from configuration.yaml_documents import Document, read
from events import registry
from events.models import Channel
from events.registry_schemas import No, given
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

    ``policies`` is the file in which a Zuplo project keeps the options of its policies.
    """
    defined = read(policies) if policies else None
    return import_document(read(path), policies=defined, key_id=key_id, by=by, dry_run=dry_run)


def import_document(
    document: Document, *, policies: Document | None = None, key_id: str = "", by: str, dry_run: bool = False
) -> Diff:
    """Import a document that has been read; all of it, or nothing. Raises DocumentError.

    What the document has no say in stays as it is. A key named by its id is given the rights that the operations of
    an AsyncAPI document need, beside those that it has.
    """
    diff = Diff()
    with transaction.atomic():
        lock_configuration()
        for wanted in described(document, policies):
            _import(document, wanted, diff, by)
        if openapi.is_export(document.data):
            _require_routes(document)
        if key_id:
            _give_rights(document, key_id, diff, by)
        if dry_run:
            transaction.set_rollback(True)
    return diff


def described(document: Document, policies: Document | None = None) -> list[Imported]:
    """Give what a document describes. Raises DocumentError."""
    data = document.data
    if asyncapi.is_asyncapi(data):
        return asyncapi.channels(document)
    if zuplo.is_zuplo(data):
        return zuplo.routes(document, policies)
    if openapi.is_openapi(data):
        return openapi.routes(document)
    raise document.error("is neither OpenAPI 3, AsyncAPI 2.6 or 3.x, nor paths with x-zuplo-route")


def _import(document: Document, wanted: Imported, diff: Diff, by: str) -> None:
    kind = _KINDS[wanted.section]
    values = dict(wanted.values)
    if kind is ROUTE:
        values["name"] = _name_of_existing(values)
    name = values[kind.identity]
    try:
        if wanted.registered is not None:
            _register(values, wanted.registered, diff, by)
        before, after = put(kind, values, keep=True, by=by)
    except ValidationError as error:
        raise refused(document, error, f"{kind.kind} {name}", *wanted.path) from None
    diff.add(kind.kind, name, before, after if before is not None else kind.without_defaults(after))


def _register(values: dict[str, Any], registers: RegisteredSchema, diff: Diff, by: str) -> None:
    """Make the schema of a channel's events the latest version of its subject. Raises ValidationError."""
    channel = Channel.objects.filter(address=values["address"]).first()
    named = subject_named(channel.schema) if channel is not None else ""
    if named and not registers.is_named:
        values["schema"] = {"subject": named}
    subject = subject_named(values["schema"])
    before = registry.latest_of(subject)
    if not subject or (before is not None and registers.is_named):
        return
    try:
        registry.register(subject, given({"schema": registers.text, "schemaType": registers.type}), by=by)
    except No as no:
        raise ValidationError({"schema": no.message}) from None
    diff.add("schema", subject, before, registry.latest_of(subject))


def _require_routes(document: Document) -> None:
    """Raise DocumentError where an export shows a route that is not here: it does not say where that leads."""
    here = set(Route.objects.values_list("name", flat=True))
    for name, path in openapi.routes_seen(document):
        if name not in here:
            raise document.error(
                f"this shows the route {name} of another gateway, not where it leads; `manage.py export` there does",
                *path,
            )


def _give_rights(document: Document, key_id: str, diff: Diff, by: str) -> None:
    if not asyncapi.is_asyncapi(document.data):
        raise document.error("only an AsyncAPI document says which rights a key needs")
    key = Key.objects.with_consumer().filter(id=key_id).first()
    if key is None:
        raise document.error(f"there is no key {key_id} to give the rights of its operations to")
    scopes = tuple(key.scopes)
    missing = [right.text for right in asyncapi.rights(document) if not is_covered(scopes, right.text)]
    if not missing:
        return
    before = key.representation()
    try:
        key = keys.update_key(key, scopes=[*key.scopes, *missing], by=by)
    except ValidationError as error:
        raise refused(document, error, f"key {key_id}", "operations") from None
    diff.add("key", key_id, before, key.representation())


def _name_of_existing(values: dict[str, Any]) -> str:
    """Give the name of the route that the document means: of the same name, or else at the same door."""
    name: str = values["name"]
    if Route.objects.filter(name=name).exists():
        return name
    transport = validation.transport_of(values["protocol"])
    for route in Route.objects.filter(path=values["path"]).only("name", "protocol", "methods"):
        if validation.transport_of(route.protocol) == transport and set(route.methods) & set(values["methods"]):
            return route.name
    return name
