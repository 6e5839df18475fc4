"""Schemas submitted to the registry: parsed, identified by digest, references resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from events.models import SchemaVersion
from gateway.schemas import avro
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import AVRO, JSON, TYPES, Parsed, read

TEXT_MAX_CHARS = 256 * 1024
EXTRA_MAX_CHARS = 64 * 1024
REFERENCES_MAX = 50
REFERRED_MAX = 200
"""Maximum number of schemas that one references, directly or indirectly."""


class RegistryError(Exception):
    """An error of Confluent's API; the first three digits of its code are the HTTP status."""

    def __init__(self, code: int, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = list(details)


@dataclass(frozen=True, slots=True)
class SubmittedSchema:
    """A submitted schema that has been parsed and is valid."""

    type: str
    text: str
    references: list[dict[str, Any]]
    extra: dict[str, Any]
    parsed: Parsed
    digest: str
    digests: frozenset[str]
    """Digests that identify it: its own and, if it was normalized, that of the submitted text."""


def parse_submitted(
    fields: Any, *, normalize: bool = False, may_read: Callable[[str], bool] = lambda subject: True
) -> SubmittedSchema:
    """Parse ``schema``, ``schemaType`` and ``references`` of a request. Raises RegistryError.

    A reference to a subject that may not be read is refused like one to a subject that does not exist.
    """
    if not isinstance(fields, Mapping) or not isinstance(fields.get("schema"), str):
        raise RegistryError(42201, "Invalid schema: the body must be an object whose `schema` is a string.")
    text, type_ = fields["schema"], fields.get("schemaType") or AVRO
    if type_ not in TYPES:
        raise RegistryError(42201, f"Invalid schema: `schemaType` must be {' or '.join(TYPES)}.")
    if len(text) > TEXT_MAX_CHARS:
        raise RegistryError(42201, f"Invalid schema: it has more than {TEXT_MAX_CHARS} characters.")
    references = _references(fields.get("references"), may_read)
    texts, extra = resolve_references(references), _extra(fields)
    try:
        parsed = read(type_, text, texts)
        digests = {_digest(parsed, references, extra)}
        if normalize:
            text = _normal(parsed)
            parsed = read(type_, text, texts)
    except InvalidSchema as fault:
        raise RegistryError(42201, f"Invalid schema: {fault}") from None
    digest = _digest(parsed, references, extra)
    return SubmittedSchema(type_, text, references, extra, parsed, digest, frozenset({*digests, digest}))


def _digest(parsed: Parsed, references: list[dict[str, Any]], extra: dict[str, Any]) -> str:
    """Return the digest that identifies a schema: of Avro in normal form, of JSON Schema as written."""
    is_avro = parsed.type == AVRO
    value = json.dumps(
        avro.normalize(parsed.value) if is_avro else parsed.value, sort_keys=is_avro, separators=(",", ":")
    )
    same = [parsed.type, value, references, *([extra] if extra else [])]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    extra = {name: fields[name] for name in ("metadata", "ruleSet") if fields.get(name)}
    if not all(isinstance(value, Mapping) for value in extra.values()) or len(json.dumps(extra)) > EXTRA_MAX_CHARS:
        raise RegistryError(
            42201, f"Invalid schema: `metadata` and `ruleSet` must be objects of at most {EXTRA_MAX_CHARS} characters."
        )
    properties = extra.get("metadata", {}).get("properties") or {}
    if not isinstance(properties, Mapping) or not all(isinstance(value, str) for value in properties.values()):
        raise RegistryError(42201, "Invalid schema: the `properties` of `metadata` must be an object of strings.")
    return extra


def _references(references: Any, may_read: Callable[[str], bool]) -> list[dict[str, Any]]:
    if references is None:
        return []
    if not isinstance(references, list) or len(references) > REFERENCES_MAX:
        raise RegistryError(42201, f"Invalid schema: `references` must be a list of at most {REFERENCES_MAX}.")
    resolved = []
    for reference in references:
        if not isinstance(reference, Mapping) or not _is_reference(reference):
            raise RegistryError(42201, "Invalid schema: a reference has `name`, `subject` and `version`.")
        version = _version(reference["subject"], reference["version"], may_read)
        resolved.append({"name": reference["name"], "subject": reference["subject"], "version": version.version})
    return resolved


def _is_reference(reference: Mapping[str, Any]) -> bool:
    version = reference.get("version")
    return (
        isinstance(reference.get("name"), str)
        and isinstance(reference.get("subject"), str)
        and isinstance(version, int)
        and not isinstance(version, bool)
    )


def _version(subject_name: str, number: int, may_read: Callable[[str], bool]) -> SchemaVersion:
    """Return the version that a reference names; -1 is the latest."""
    versions = SchemaVersion.objects.select_related("schema").filter(subject__name=subject_name, is_deleted=False)
    version = (versions.filter(version=number) if number != -1 else versions.order_by("version")).last()
    if version is None or not may_read(subject_name):
        raise RegistryError(
            42201, f"Invalid schema: no schema reference found for subject {subject_name[:100]} version {number}."
        )
    return version


def resolve_references(references: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the names and texts of the referenced schemas, each after those that it references itself."""
    texts: dict[str, str] = {}

    def follow(references: list[dict[str, Any]]) -> None:
        for reference in references:
            if reference["name"] in texts:
                continue
            schema = SchemaVersion.objects.select_related("schema").get(
                subject__name=reference["subject"], version=reference["version"]
            ).schema  # fmt: skip
            follow(schema.references)
            texts[reference["name"]] = schema.text
            if len(texts) > REFERRED_MAX:
                raise RegistryError(42201, f"Invalid schema: it references more than {REFERRED_MAX} others.")

    follow(references)
    return list(texts.items())


def _normal(parsed: Parsed) -> str:
    value = avro.normalize(parsed.value) if parsed.type == AVRO else parsed.value
    return json.dumps(value, sort_keys=parsed.type == JSON, separators=(",", ":"), ensure_ascii=False)
