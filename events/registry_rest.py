"""Confluent's REST API of a schema registry, as answers to the data plane (:mod:`gateway.handlers.registry`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from events import registry, registry_settings
from events.models import Schema, SchemaVersion, Subject
from events.registry import GLOBAL, live
from events.registry_question import NUMBER, Question
from events.registry_schemas import No, given
from gateway.schemas.registered import AVRO, TYPES

LATEST = ("latest", "-1")
GUID_DIGITS = 32
LIST_MAX = 1000
LIST_MAX_CHARS = 500_000
"""What one answer may carry of schemas' texts."""


class Raw(str):
    """A schema that is the answer itself, not a text in JSON."""


Answer = Callable[..., Any]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"status", "body"}``, or ``text`` for the body as it is."""
    question = Question(asked)
    try:
        question.require_text()
        body = _answer(question)
        return {"status": 200, "text" if isinstance(body, Raw) else "body": body}
    except No as no:
        status = no.code if no.code < 1000 else no.code // 100
        return {"status": status, "body": {"error_code": no.code, "message": no.message}}


def _answer(question: Question) -> Any:
    methods = set()
    for method, template, function in ROUTES:
        names = _matched(template, question.path)
        if names is None:
            continue
        if method == question.method:
            return function(question, *names)
        methods.add(method)
    if methods:
        raise No(405, "HTTP 405 Method Not Allowed")
    raise No(404, "HTTP 404 Not Found")


def _matched(template: tuple[str, ...], path: list[str]) -> list[str] | None:
    if len(template) != len(path):
        return None
    names = []
    for wanted, part in zip(template, path, strict=True):
        if wanted == "*":
            names.append(part)
        elif wanted != part:
            return None
    return names


def _nothing(_: Question) -> dict[str, Any]:
    return {}


def _types(_: Question) -> list[str]:
    return [*TYPES]


def _contexts(_: Question) -> list[str]:
    return ["."]


# Subjects and versions


def _subjects(question: Question) -> list[str]:
    wanted = Subject.objects.exclude(name=GLOBAL).filter(name__startswith=question.text("subjectPrefix"))
    if question.says("deletedOnly"):
        wanted = wanted.filter(versions__is_deleted=True).exclude(versions__is_deleted=False)
    elif question.says("deleted"):
        wanted = wanted.filter(versions__isnull=False)
    else:
        wanted = wanted.filter(versions__is_deleted=False)
    return question.page(sorted(set(wanted.values_list("name", flat=True))))


def _versions(question: Question, name: str) -> list[int]:
    wanted = question.says("deletedOnly")
    return question.page([each.version for each in _all(question, name) if each.is_deleted or not wanted])


def _latest_with(question: Question, name: str) -> dict[str, Any]:
    """Give the latest version of which the metadata have all these properties."""
    properties = question.pairs("key", "value")
    for version in reversed(_all(question, name)):
        held = version.schema.extra.get("metadata", {}).get("properties") or {}
        if properties.items() <= held.items():
            return _said(version)
    raise No(40402, "No version has these metadata.")


def _show(question: Question, name: str, number: str) -> dict[str, Any]:
    return _said(_one(question, name, number))


def _show_schema(question: Question, name: str, number: str) -> Raw:
    return Raw(_one(question, name, number).schema.text)


def _referenced_by(question: Question, name: str, number: str) -> list[int]:
    version = _one(question, name, number)
    pair = (name, version.version)
    schemas = Schema.objects.exclude(references=[])
    return [
        schema.pk
        for schema in schemas
        if any((reference["subject"], reference["version"]) == pair for reference in schema.references)
    ]


def _register(question: Question, name: str) -> dict[str, Any]:
    schema = given(question.body, normalize=question.says("normalize"))
    version = registry.register(name, schema, by=question.by)
    return {"id": version.schema_id, "version": version.version, **_described(version.schema)}


def _look_up(question: Question, name: str) -> dict[str, Any]:
    schema = given(question.body, normalize=question.says("normalize"))
    found = [version for version in _all(question, name) if version.schema.digest in schema.digests]
    if not found:
        raise No(40403, "Schema not found")
    return _said(found[-1])


def _delete_subject(question: Question, name: str) -> list[int]:
    subject = _subject(name)
    hidden, shown = list(subject.versions.filter(is_deleted=True)), list(live(subject))
    if question.says("permanent"):
        if shown:
            raise No(40405, f"Subject '{name}' was not deleted first before being permanently deleted")
        registry.erase(hidden, subject, by=question.by)
        return [version.version for version in hidden]
    if not shown:
        raise No(40404, f"Subject '{name}' was soft deleted. Set permanent=true to delete permanently")
    registry.hide(shown, subject, by=question.by)
    return [version.version for version in shown]


def _delete_version(question: Question, name: str, number: str) -> int:
    subject = _subject(name)
    version = _numbered(list(subject.versions.select_related("schema").order_by("version")), number)
    if question.says("permanent"):
        if not version.is_deleted:
            raise No(40407, f"Subject '{name}' Version {number} was not deleted first before being permanently deleted")
        registry.erase([version], subject, by=question.by)
    elif version.is_deleted:
        raise No(40406, f"Subject '{name}' Version {number} was soft deleted. Set permanent=true to delete permanently")
    else:
        registry.hide([version], subject, by=question.by)
    return version.version


# Schemas by id


def _schema(question: Question, number: str) -> dict[str, Any]:
    schema = _by_id(number)
    last = {"maxId": Schema.objects.latest("id").pk} if question.says("fetchMaxId") else {}
    return {"schema": schema.text, **_described(schema), **last}


def _schema_alone(question: Question, number: str) -> Raw:
    return Raw(_by_id(number).text)


def _schema_by_guid(question: Question, guid: str) -> dict[str, Any]:
    digest = guid.replace("-", "")
    schema = Schema.objects.filter(digest__startswith=digest).first() if len(digest) == GUID_DIGITS else None
    if schema is None:
        raise No(40403, f"Schema {guid[:50]} not found")
    return {"schema": schema.text, "id": schema.pk, **_described(schema)}


def _schema_subjects(question: Question, number: str) -> list[str]:
    return question.page(sorted({version.subject.name for version in _holding(question, number)}))


def _schema_versions(question: Question, number: str) -> list[dict[str, Any]]:
    held = question.page(_holding(question, number))
    return [{"subject": version.subject.name, "version": version.version} for version in held]


def _schemas(question: Question) -> list[dict[str, Any]]:
    rows = SchemaVersion.objects.select_related("schema", "subject").order_by("subject__name", "version")
    rows = rows.filter(subject__name__startswith=question.text("subjectPrefix"))
    if not question.says("deleted"):
        rows = rows.filter(is_deleted=False)
    found = list(rows)
    if question.says("latestOnly"):
        found = list({version.subject_id: version for version in found}.values())
    first = question.number("offset", 0)
    said, chars = [], 0
    for version in found[first : first + min(question.number("limit", LIST_MAX), LIST_MAX)]:
        chars += len(version.schema.text)
        if chars > LIST_MAX_CHARS:
            break
        said.append(_said(version))
    return said


# Compatibility


def _test_one(question: Question, name: str, number: str) -> dict[str, Any]:
    """A subject that is not there yet, or not any more, takes what comes first."""
    subject = Subject.objects.filter(name=name).first()
    if number in LATEST and (subject is None or not live(subject).exists()):
        return _tested(question, name, [])
    return _tested(question, name, [_one(question, name, number)])


def _test_all(question: Question, name: str) -> dict[str, Any]:
    subject = Subject.objects.filter(name=name).first()
    return _tested(question, name, list(live(subject)) if subject is not None else [])


def _tested(question: Question, name: str, versions: list[SchemaVersion]) -> dict[str, Any]:
    schema = given(question.body, normalize=question.says("normalize"))
    faults = registry.incompatible(name, schema, versions)
    return {"is_compatible": not faults, **({"messages": faults} if question.says("verbose") else {})}


# What they share


def _subject(name: str) -> Subject:
    subject = Subject.objects.filter(name=name, versions__isnull=False).distinct().first()
    if subject is None:
        raise No(40401, f"Subject '{name}' not found.")
    return subject


def _all(question: Question, name: str) -> list[SchemaVersion]:
    """Give the versions of a subject; deleted ones too where they are asked for. Raises No where there are none."""
    subject = _subject(name)
    versions = subject.versions.select_related("schema", "subject").order_by("version")
    found = list(versions if question.says("deleted") else versions.filter(is_deleted=False))
    if not found:
        raise No(40401, f"Subject '{name}' not found.")
    return found


def _one(question: Question, name: str, number: str) -> SchemaVersion:
    return _numbered(_all(question, name), number)


def _numbered(versions: list[SchemaVersion], number: str) -> SchemaVersion:
    if number in LATEST:
        shown = [version for version in versions if not version.is_deleted]
        return (shown or versions)[-1]
    if not NUMBER.fullmatch(number) or int(number) == 0:
        raise No(
            42202, f"The specified version '{number[:20]}' is not a valid version id. It is a number, or `latest`."
        )
    found = next((version for version in versions if version.version == int(number)), None)
    if found is None:
        raise No(40402, f"Version {number} not found.")
    return found


def _by_id(number: str) -> Schema:
    schema = Schema.objects.filter(id=int(number)).first() if NUMBER.fullmatch(number) else None
    if schema is None:
        raise No(40403, f"Schema {number[:20]} not found")
    return schema


def _holding(question: Question, number: str) -> list[SchemaVersion]:
    versions = _by_id(number).versions.select_related("subject").order_by("subject__name", "version")
    if question.text("subject"):
        versions = versions.filter(subject__name=question.text("subject"))
    return list(versions if question.says("deleted") else versions.filter(is_deleted=False))


def _said(version: SchemaVersion) -> dict[str, Any]:
    return {
        "subject": version.subject.name,
        "version": version.version,
        "id": version.schema_id,
        "schema": version.schema.text,
        **_described(version.schema),
    }


def _described(schema: Schema) -> dict[str, Any]:
    """Say the type, where it is not Avro, and the references, where there are some: as Confluent's registry does."""
    said: dict[str, Any] = {"guid": str(UUID(schema.digest[:GUID_DIGITS]))} | schema.extra
    said |= {} if schema.type == AVRO else {"schemaType": schema.type}
    return said | ({"references": schema.references} if schema.references else {})


ROUTES: tuple[tuple[str, tuple[str, ...], Answer], ...] = (
    ("GET", (), _nothing),
    ("GET", ("contexts",), _contexts),
    ("GET", ("subjects",), _subjects),
    ("POST", ("subjects", "*"), _look_up),
    ("DELETE", ("subjects", "*"), _delete_subject),
    ("GET", ("subjects", "*", "metadata"), _latest_with),
    ("GET", ("subjects", "*", "versions"), _versions),
    ("POST", ("subjects", "*", "versions"), _register),
    ("GET", ("subjects", "*", "versions", "*"), _show),
    ("DELETE", ("subjects", "*", "versions", "*"), _delete_version),
    ("GET", ("subjects", "*", "versions", "*", "schema"), _show_schema),
    ("GET", ("subjects", "*", "versions", "*", "referencedby"), _referenced_by),
    ("GET", ("schemas",), _schemas),
    ("GET", ("schemas", "types"), _types),
    ("GET", ("schemas", "ids", "*"), _schema),
    ("GET", ("schemas", "ids", "*", "schema"), _schema_alone),
    ("GET", ("schemas", "ids", "*", "subjects"), _schema_subjects),
    ("GET", ("schemas", "ids", "*", "versions"), _schema_versions),
    ("GET", ("schemas", "guids", "*"), _schema_by_guid),
    ("POST", ("compatibility", "subjects", "*", "versions"), _test_all),
    ("POST", ("compatibility", "subjects", "*", "versions", "*"), _test_one),
    ("GET", ("config",), registry_settings.config),
    ("PUT", ("config",), registry_settings.set_config),
    ("DELETE", ("config",), registry_settings.delete_config),
    ("GET", ("config", "*"), registry_settings.config),
    ("PUT", ("config", "*"), registry_settings.set_config),
    ("DELETE", ("config", "*"), registry_settings.delete_config),
    ("GET", ("mode",), registry_settings.mode),
    ("PUT", ("mode",), registry_settings.set_mode),
    ("GET", ("mode", "*"), registry_settings.mode),
    ("PUT", ("mode", "*"), registry_settings.set_mode),
    ("DELETE", ("mode", "*"), registry_settings.delete_mode),
)
