"""Confluent's REST API of a schema registry; the data plane forwards requests (:mod:`gateway.handlers.registry`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db.models import Max

from events import registry, registry_settings
from events.models import Schema, SchemaVersion, Subject
from events.registry import GLOBAL, live
from events.registry_access import Need
from events.registry_request import NUMBER, RegistryRequest
from events.registry_schemas import RegistryError, SubmittedSchema, parse_submitted
from gateway.schemas.registered import AVRO, TYPES

LATEST = ("latest", "-1")
GUID_DIGITS = 32
LIST_MAX = 1000
LIST_MAX_CHARS = 500_000
"""Maximum length of the schemas in one response."""


class Raw(str):
    """A schema that is the body of the response, not a string in JSON."""


Answer = Callable[..., Any]


def handle(fields: dict[str, Any]) -> dict[str, Any]:
    """Handle one request and return ``{"status", "body"}``, or ``text`` for a body that is not JSON.

    Raises Refused where the caller lacks a right.
    """
    request = RegistryRequest(fields)
    try:
        request.require_text()
        request.require_single_values()
        body = _dispatch(request)
        return {"status": 200, "text" if isinstance(body, Raw) else "body": body}
    except RegistryError as error:
        status = error.code if error.code < 1000 else error.code // 100
        return {"status": status, "body": {"error_code": error.code, "message": error.message}}


def _dispatch(request: RegistryRequest) -> Any:
    methods = set()
    for method, template, function, need in ROUTES:
        names = _matched(template, request.path)
        if names is None:
            continue
        if method == request.method:
            if need is not Need.NOTHING:
                request.access.require(need, names[0] if names else GLOBAL)
            return function(request, *names)
        methods.add(method)
    if methods:
        raise RegistryError(405, "HTTP 405 Method Not Allowed")
    raise RegistryError(404, "HTTP 404 Not Found")


def _matched(template: tuple[str, ...], path: list[str]) -> list[str] | None:
    if len(template) != len(path):
        return None
    names = []
    for expected, part in zip(template, path, strict=True):
        if expected == "*":
            names.append(part)
        elif expected != part:
            return None
    return names


def _nothing(_: RegistryRequest) -> dict[str, Any]:
    return {}


def _types(_: RegistryRequest) -> list[str]:
    return [*TYPES]


def _contexts(_: RegistryRequest) -> list[str]:
    return ["."]


# Subjects and versions


def _subjects(request: RegistryRequest) -> list[str]:
    subjects = Subject.objects.exclude(name=GLOBAL).filter(name__startswith=request.text("subjectPrefix"))
    if request.flag("deletedOnly"):
        subjects = subjects.filter(versions__is_deleted=True).exclude(versions__is_deleted=False)
    elif request.flag("deleted"):
        subjects = subjects.filter(versions__isnull=False)
    else:
        subjects = subjects.filter(versions__is_deleted=False)
    return request.page(sorted(filter(request.access.may_read, set(subjects.values_list("name", flat=True)))))


def _versions(request: RegistryRequest, name: str) -> list[int]:
    is_deleted_only = request.flag("deletedOnly")
    return request.page([each.version for each in _all(request, name) if each.is_deleted or not is_deleted_only])


def _latest_with(request: RegistryRequest, name: str) -> dict[str, Any]:
    """Return the latest version whose metadata have all these properties."""
    properties = request.pairs("key", "value")
    for version in reversed(_all(request, name)):
        held = version.schema.extra.get("metadata", {}).get("properties") or {}
        if properties.items() <= held.items():
            return _representation(version)
    raise RegistryError(40402, "No version has these properties in its metadata.")


def _show(request: RegistryRequest, name: str, number: str) -> dict[str, Any]:
    return _representation(_one(request, name, number))


def _show_schema(request: RegistryRequest, name: str, number: str) -> Raw:
    return Raw(_one(request, name, number).schema.text)


def _referenced_by(request: RegistryRequest, name: str, number: str) -> list[int]:
    version = _one(request, name, number)
    pair = (name, version.version)
    schemas = Schema.objects.exclude(references=[])
    return [
        schema.pk
        for schema in schemas
        if any((reference["subject"], reference["version"]) == pair for reference in schema.references)
        and _is_readable(request, schema)
    ]


def _register(request: RegistryRequest, name: str) -> dict[str, Any]:
    schema = _submitted(request)
    version = registry.register(name, schema, by=request.by)
    return {"id": version.schema_id, "version": version.version, **_described(version.schema)}


def _look_up(request: RegistryRequest, name: str) -> dict[str, Any]:
    schema = _submitted(request)
    found = [version for version in _all(request, name) if version.schema.digest in schema.digests]
    if not found:
        raise RegistryError(40403, "Schema not found")
    return _representation(found[-1])


def _delete_subject(request: RegistryRequest, name: str) -> list[int]:
    subject = _subject(name)
    hidden, shown = list(subject.versions.filter(is_deleted=True)), list(live(subject))
    if request.flag("permanent"):
        if shown:
            raise RegistryError(40405, f"Subject '{name}' was not deleted first before being permanently deleted")
        registry.erase(hidden, subject, by=request.by)
        return [version.version for version in hidden]
    if not shown:
        raise RegistryError(40404, f"Subject '{name}' was soft deleted. Set permanent=true to delete permanently")
    registry.hide(shown, subject, by=request.by)
    return [version.version for version in shown]


def _delete_version(request: RegistryRequest, name: str, number: str) -> int:
    subject = _subject(name)
    version = _numbered(list(subject.versions.select_related("schema").order_by("version")), number)
    if request.flag("permanent"):
        if not version.is_deleted:
            raise RegistryError(
                40407, f"Subject '{name}' Version {number} was not deleted first before being permanently deleted"
            )
        registry.erase([version], subject, by=request.by)
    elif version.is_deleted:
        raise RegistryError(
            40406, f"Subject '{name}' Version {number} was soft deleted. Set permanent=true to delete permanently"
        )
    else:
        registry.hide([version], subject, by=request.by)
    return version.version


# Schemas by id


def _schema(request: RegistryRequest, number: str) -> dict[str, Any]:
    schema = _by_id(request, number)
    last = {"maxId": _last_id(request)} if request.flag("fetchMaxId") else {}
    return {"schema": schema.text, **_described(schema), **last}


def _schema_alone(request: RegistryRequest, number: str) -> Raw:
    return Raw(_by_id(request, number).text)


def _schema_by_guid(request: RegistryRequest, guid: str) -> dict[str, Any]:
    digest = guid.replace("-", "")
    schema = Schema.objects.filter(digest__startswith=digest).first() if len(digest) == GUID_DIGITS else None
    if schema is None or not _is_readable(request, schema):
        raise RegistryError(40403, f"Schema {guid[:50]} not found")
    return {"schema": schema.text, "id": schema.pk, **_described(schema)}


def _schema_subjects(request: RegistryRequest, number: str) -> list[str]:
    return request.page(sorted({version.subject.name for version in _holding(request, number)}))


def _schema_versions(request: RegistryRequest, number: str) -> list[dict[str, Any]]:
    held = request.page(_holding(request, number))
    return [{"subject": version.subject.name, "version": version.version} for version in held]


def _schemas(request: RegistryRequest) -> list[dict[str, Any]]:
    rows = SchemaVersion.objects.select_related("schema", "subject").order_by("subject__name", "version")
    rows = rows.filter(subject__name__startswith=request.text("subjectPrefix"))
    if not request.flag("deleted"):
        rows = rows.filter(is_deleted=False)
    found = [version for version in rows if request.access.may_read(version.subject.name)]
    if request.flag("latestOnly"):
        found = list({version.subject_id: version for version in found}.values())
    first = request.number("offset", 0)
    representations, chars = [], 0
    for version in found[first : first + min(request.number("limit", LIST_MAX), LIST_MAX)]:
        chars += len(version.schema.text)
        if chars > LIST_MAX_CHARS:
            break
        representations.append(_representation(version))
    return representations


# Compatibility


def _test_one(request: RegistryRequest, name: str, number: str) -> dict[str, Any]:
    """Test against one version; a subject without versions is compatible with every schema."""
    subject = Subject.objects.filter(name=name).first()
    if number in LATEST and (subject is None or not live(subject).exists()):
        return _tested(request, name, [])
    return _tested(request, name, [_one(request, name, number)])


def _test_all(request: RegistryRequest, name: str) -> dict[str, Any]:
    subject = Subject.objects.filter(name=name).first()
    return _tested(request, name, list(live(subject)) if subject is not None else [])


def _tested(request: RegistryRequest, name: str, versions: list[SchemaVersion]) -> dict[str, Any]:
    schema = _submitted(request)
    faults = registry.incompatible(name, schema, versions)
    return {"is_compatible": not faults, **({"messages": faults} if request.flag("verbose") else {})}


# Shared


def _submitted(request: RegistryRequest) -> SubmittedSchema:
    return parse_submitted(request.body, normalize=request.flag("normalize"), may_read=request.access.may_read)


def _subject(name: str) -> Subject:
    subject = Subject.objects.filter(name=name, versions__isnull=False).distinct().first()
    if subject is None:
        raise RegistryError(40401, f"Subject '{name}' not found.")
    return subject


def _all(request: RegistryRequest, name: str) -> list[SchemaVersion]:
    """Return the versions of a subject, with deleted ones if requested. Raises RegistryError if there are none."""
    subject = _subject(name)
    versions = subject.versions.select_related("schema", "subject").order_by("version")
    found = list(versions if request.flag("deleted") else versions.filter(is_deleted=False))
    if not found:
        raise RegistryError(40401, f"Subject '{name}' not found.")
    return found


def _one(request: RegistryRequest, name: str, number: str) -> SchemaVersion:
    return _numbered(_all(request, name), number)


def _numbered(versions: list[SchemaVersion], number: str) -> SchemaVersion:
    if number in LATEST:
        shown = [version for version in versions if not version.is_deleted]
        return (shown or versions)[-1]
    if not NUMBER.fullmatch(number) or int(number) == 0:
        raise RegistryError(
            42202, f"The specified version '{number[:20]}' is not a valid version id. It is a number, or `latest`."
        )
    found = next((version for version in versions if version.version == int(number)), None)
    if found is None:
        raise RegistryError(40402, f"Version {number} not found.")
    return found


def _by_id(request: RegistryRequest, number: str) -> Schema:
    """Return a schema of a subject that the caller may read. Raises RegistryError, as for one that does not exist."""
    schema = Schema.objects.filter(id=int(number)).first() if NUMBER.fullmatch(number) else None
    if schema is None or not _is_readable(request, schema):
        raise RegistryError(40403, f"Schema {number[:20]} not found")
    return schema


def _is_readable(request: RegistryRequest, schema: Schema) -> bool:
    return any(map(request.access.may_read, schema.versions.values_list("subject__name", flat=True)))


def _last_id(request: RegistryRequest) -> int:
    """Return the largest id of the schemas that the caller may read."""
    last = SchemaVersion.objects.order_by().values_list("subject__name").annotate(Max("schema_id"))
    return max((number for name, number in last if request.access.may_read(name)), default=0)


def _holding(request: RegistryRequest, number: str) -> list[SchemaVersion]:
    versions = _by_id(request, number).versions.select_related("subject").order_by("subject__name", "version")
    if request.text("subject"):
        versions = versions.filter(subject__name=request.text("subject"))
    found = versions if request.flag("deleted") else versions.filter(is_deleted=False)
    return [version for version in found if request.access.may_read(version.subject.name)]


def _representation(version: SchemaVersion) -> dict[str, Any]:
    return {
        "subject": version.subject.name,
        "version": version.version,
        "id": version.schema_id,
        "schema": version.schema.text,
        **_described(version.schema),
    }


def _described(schema: Schema) -> dict[str, Any]:
    """Return the type unless it is Avro, and the references if there are any, as Confluent's registry does."""
    description: dict[str, Any] = {"guid": str(UUID(schema.digest[:GUID_DIGITS]))} | schema.extra
    description |= {} if schema.type == AVRO else {"schemaType": schema.type}
    return description | ({"references": schema.references} if schema.references else {})


ROUTES: tuple[tuple[str, tuple[str, ...], Answer, Need], ...] = (
    ("GET", (), _nothing, Need.NOTHING),
    ("GET", ("contexts",), _contexts, Need.NOTHING),
    ("GET", ("subjects",), _subjects, Need.NOTHING),
    ("POST", ("subjects", "*"), _look_up, Need.READ),
    ("DELETE", ("subjects", "*"), _delete_subject, Need.WRITE),
    ("GET", ("subjects", "*", "metadata"), _latest_with, Need.READ),
    ("GET", ("subjects", "*", "versions"), _versions, Need.READ),
    ("POST", ("subjects", "*", "versions"), _register, Need.WRITE),
    ("GET", ("subjects", "*", "versions", "*"), _show, Need.READ),
    ("DELETE", ("subjects", "*", "versions", "*"), _delete_version, Need.WRITE),
    ("GET", ("subjects", "*", "versions", "*", "schema"), _show_schema, Need.READ),
    ("GET", ("subjects", "*", "versions", "*", "referencedby"), _referenced_by, Need.READ),
    ("GET", ("schemas",), _schemas, Need.NOTHING),
    ("GET", ("schemas", "types"), _types, Need.NOTHING),
    ("GET", ("schemas", "ids", "*"), _schema, Need.NOTHING),
    ("GET", ("schemas", "ids", "*", "schema"), _schema_alone, Need.NOTHING),
    ("GET", ("schemas", "ids", "*", "subjects"), _schema_subjects, Need.NOTHING),
    ("GET", ("schemas", "ids", "*", "versions"), _schema_versions, Need.NOTHING),
    ("GET", ("schemas", "guids", "*"), _schema_by_guid, Need.NOTHING),
    ("POST", ("compatibility", "subjects", "*", "versions"), _test_all, Need.READ),
    ("POST", ("compatibility", "subjects", "*", "versions", "*"), _test_one, Need.READ),
    ("GET", ("config",), registry_settings.config, Need.READ),
    ("PUT", ("config",), registry_settings.set_config, Need.WRITE),
    ("DELETE", ("config",), registry_settings.delete_config, Need.WRITE),
    ("GET", ("config", "*"), registry_settings.config, Need.READ),
    ("PUT", ("config", "*"), registry_settings.set_config, Need.WRITE),
    ("DELETE", ("config", "*"), registry_settings.delete_config, Need.WRITE),
    ("GET", ("mode",), registry_settings.mode, Need.READ),
    ("PUT", ("mode",), registry_settings.set_mode, Need.WRITE),
    ("GET", ("mode", "*"), registry_settings.mode, Need.READ),
    ("PUT", ("mode", "*"), registry_settings.set_mode, Need.WRITE),
    ("DELETE", ("mode", "*"), registry_settings.delete_mode, Need.WRITE),
)
