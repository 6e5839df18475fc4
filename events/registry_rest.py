"""Confluent's REST API of a schema registry, as answers to the data plane (:mod:`gateway.handlers.registry`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from events import registry
from events.models import Schema, SchemaVersion, Subject
from events.registry import GLOBAL, Compatibility, Mode, No, live
from gateway.schemas.registered import AVRO, TYPES

LIST_MAX = 1000
LIST_MAX_CHARS = 500_000
"""What one answer may carry of schemas' texts."""
_NUMBER = re.compile(r"[0-9]{1,9}")


class Question:
    """One request: its method, path, query and body."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.method: str = asked["method"]
        self.path: list[str] = asked["path"]
        self.body: Any = asked["body"]
        self.by: str = asked["by"]
        self._query: Mapping[str, str] = asked["query"]

    def says(self, name: str) -> bool:
        """Say whether a parameter of the query is true."""
        return self._query.get(name, "").lower() == "true"

    def text(self, name: str) -> str:
        """Give a parameter of the query."""
        return self._query.get(name, "")

    def number(self, name: str, default: int) -> int:
        """Give a parameter of the query that is a number."""
        text = self.text(name)
        return int(text) if _NUMBER.fullmatch(text) else default


Answer = Callable[..., Any]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"status", "body"}``."""
    question = Question(asked)
    try:
        return {"status": 200, "body": _answer(question)}
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
    return sorted(set(wanted.values_list("name", flat=True)))


def _versions(question: Question, name: str) -> list[int]:
    return [version.version for version in _all(question, name)]


def _show(question: Question, name: str, number: str) -> dict[str, Any]:
    return _said(_one(question, name, number))


def _show_schema(question: Question, name: str, number: str) -> str:
    return _one(question, name, number).schema.text


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
    schema = registry.given(question.body, normalize=question.says("normalize"))
    version = registry.register(name, schema, by=question.by)
    return {"id": version.schema_id, "version": version.version, **_described(version.schema)}


def _look_up(question: Question, name: str) -> dict[str, Any]:
    schema = registry.given(question.body, normalize=question.says("normalize"))
    found = [version for version in _all(question, name) if version.schema.digest == schema.digest]
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
    return {"schema": schema.text, **_described(schema)}


def _schema_alone(question: Question, number: str) -> str:
    return _by_id(number).text


def _schema_subjects(question: Question, number: str) -> list[str]:
    return sorted({version.subject.name for version in _holding(question, number)})


def _schema_versions(question: Question, number: str) -> list[dict[str, Any]]:
    return [{"subject": version.subject.name, "version": version.version} for version in _holding(question, number)]


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
    return _tested(question, name, [_one(question, name, number)])


def _test_all(question: Question, name: str) -> dict[str, Any]:
    subject = Subject.objects.filter(name=name).first()
    return _tested(question, name, list(live(subject)) if subject is not None else [])


def _tested(question: Question, name: str, versions: list[SchemaVersion]) -> dict[str, Any]:
    schema = registry.given(question.body, normalize=question.says("normalize"))
    faults = registry.incompatible(name, schema, versions)
    return {"is_compatible": not faults, **({"messages": faults} if question.says("verbose") else {})}


# Configuration


def _config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    level = registry.compatibility_of(name)
    if name != GLOBAL and not question.says("defaultToGlobal") and not _own(name, "compatibility"):
        raise No(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    return {"compatibilityLevel": level.value}


def _set_config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    wanted = question.body.get("compatibility") if isinstance(question.body, Mapping) else None
    if not isinstance(wanted, str) or wanted.upper() not in list(Compatibility):
        raise No(42203, f"Invalid compatibility level. Valid values are {', '.join(Compatibility)}")
    registry.configure(name, compatibility=wanted.upper(), by=question.by)
    return {"compatibility": wanted.upper()}


def _delete_config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    before = registry.compatibility_of(name)
    if name != GLOBAL and not _own(name, "compatibility"):
        raise No(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    registry.configure(name, compatibility="", by=question.by)
    return {"compatibilityLevel": before.value, "compatibility": before.value}


def _mode(question: Question, name: str = GLOBAL) -> dict[str, str]:
    if name != GLOBAL and not question.says("defaultToGlobal") and not _own(name, "mode"):
        raise No(40409, f"Subject '{name}' does not have subject-level mode configured")
    return {"mode": registry.mode_of(name).value}


def _set_mode(question: Question, name: str = GLOBAL) -> dict[str, str]:
    wanted = question.body.get("mode") if isinstance(question.body, Mapping) else None
    if not isinstance(wanted, str) or wanted.upper() not in list(Mode):
        raise No(42204, f"Invalid mode. Valid values are {', '.join(Mode)}")
    registry.configure(name, mode=wanted.upper(), by=question.by)
    return {"mode": wanted.upper()}


def _delete_mode(question: Question, name: str) -> dict[str, str]:
    before = registry.mode_of(name)
    if not _own(name, "mode"):
        raise No(40409, f"Subject '{name}' does not have subject-level mode configured")
    registry.configure(name, mode="", by=question.by)
    return {"mode": before.value}


# What they share


def _own(name: str, field: str) -> str:
    return Subject.objects.filter(name=name).values_list(field, flat=True).first() or ""


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
    if number in ("latest", "-1"):
        shown = [version for version in versions if not version.is_deleted]
        return (shown or versions)[-1]
    if not _NUMBER.fullmatch(number) or int(number) == 0:
        raise No(
            42202, f"The specified version '{number[:20]}' is not a valid version id. It is a number, or `latest`."
        )
    found = next((version for version in versions if version.version == int(number)), None)
    if found is None:
        raise No(40402, f"Version {number} not found.")
    return found


def _by_id(number: str) -> Schema:
    schema = Schema.objects.filter(id=int(number)).first() if _NUMBER.fullmatch(number) else None
    if schema is None:
        raise No(40403, f"Schema {number[:20]} not found")
    return schema


def _holding(question: Question, number: str) -> list[SchemaVersion]:
    versions = _by_id(number).versions.select_related("subject").order_by("subject__name", "version")
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
    said: dict[str, Any] = {} if schema.type == AVRO else {"schemaType": schema.type}
    return said | ({"references": schema.references} if schema.references else {})


ROUTES: tuple[tuple[str, tuple[str, ...], Answer], ...] = (
    ("GET", (), _nothing),
    ("GET", ("contexts",), _contexts),
    ("GET", ("subjects",), _subjects),
    ("POST", ("subjects", "*"), _look_up),
    ("DELETE", ("subjects", "*"), _delete_subject),
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
    ("POST", ("compatibility", "subjects", "*", "versions"), _test_all),
    ("POST", ("compatibility", "subjects", "*", "versions", "*"), _test_one),
    ("GET", ("config",), _config),
    ("PUT", ("config",), _set_config),
    ("DELETE", ("config",), _delete_config),
    ("GET", ("config", "*"), _config),
    ("PUT", ("config", "*"), _set_config),
    ("DELETE", ("config", "*"), _delete_config),
    ("GET", ("mode",), _mode),
    ("PUT", ("mode",), _set_mode),
    ("GET", ("mode", "*"), _mode),
    ("PUT", ("mode", "*"), _set_mode),
    ("DELETE", ("mode", "*"), _delete_mode),
)
