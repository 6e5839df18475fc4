"""A schema as somebody gives it to the registry: read, known again, with what it refers to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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
"""Schemas that one refers to, through others too."""


class No(Exception):
    """The registry says no, with a code of Confluent's API; the first three digits are the HTTP status."""

    def __init__(self, code: int, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = list(details)


@dataclass(frozen=True, slots=True)
class Given:
    """A schema as somebody gives it: read, and found to be one."""

    type: str
    text: str
    references: list[dict[str, Any]]
    extra: dict[str, Any]
    parsed: Parsed
    digest: str
    digests: frozenset[str]
    """By which it is known: its own, and of one that was normalized also that of what was given."""


def given(fields: Any, *, normalize: bool = False) -> Given:
    """Read ``schema``, ``schemaType`` and ``references`` of a request. Raises No."""
    if not isinstance(fields, Mapping) or not isinstance(fields.get("schema"), str):
        raise No(42201, "Invalid schema: the body is an object whose `schema` is the schema as a text.")
    text, type_ = fields["schema"], fields.get("schemaType") or AVRO
    if type_ not in TYPES:
        raise No(42201, f"Invalid schema: `schemaType` is {' or '.join(TYPES)}; {str(type_)[:40]!r} is not had here.")
    if len(text) > TEXT_MAX_CHARS:
        raise No(42201, f"Invalid schema: it has more than {TEXT_MAX_CHARS} characters.")
    references = _references(fields.get("references"))
    texts, extra = resolved(references), _extra(fields)
    try:
        parsed = read(type_, text, texts)
        digests = {_digest(parsed, references, extra)}
        if normalize:
            text = _normal(parsed)
            parsed = read(type_, text, texts)
    except InvalidSchema as fault:
        raise No(42201, f"Invalid schema: {fault}") from None
    digest = _digest(parsed, references, extra)
    return Given(type_, text, references, extra, parsed, digest, frozenset({*digests, digest}))


def _digest(parsed: Parsed, references: list[dict[str, Any]], extra: dict[str, Any]) -> str:
    """Say by what the same schema is known again: an Avro schema however it is written, JSON Schemas as they stand."""
    is_avro = parsed.type == AVRO
    value = json.dumps(avro.normal(parsed.value) if is_avro else parsed.value, sort_keys=is_avro, separators=(",", ":"))
    same = [parsed.type, value, references, *([extra] if extra else [])]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    extra = {name: fields[name] for name in ("metadata", "ruleSet") if fields.get(name)}
    if not all(isinstance(value, Mapping) for value in extra.values()) or len(json.dumps(extra)) > EXTRA_MAX_CHARS:
        raise No(
            42201, f"Invalid schema: `metadata` and `ruleSet` are objects, of {EXTRA_MAX_CHARS} characters at most."
        )
    properties = extra.get("metadata", {}).get("properties") or {}
    if not isinstance(properties, Mapping) or not all(isinstance(value, str) for value in properties.values()):
        raise No(42201, "Invalid schema: the `properties` of `metadata` are an object of texts.")
    return extra


def _references(references: Any) -> list[dict[str, Any]]:
    if references is None:
        return []
    if not isinstance(references, list) or len(references) > REFERENCES_MAX:
        raise No(42201, f"Invalid schema: `references` is a list of at most {REFERENCES_MAX}.")
    found = []
    for reference in references:
        if not isinstance(reference, Mapping) or not _is_reference(reference):
            raise No(42201, "Invalid schema: a reference has `name` and `subject`, texts, and `version`, a number.")
        version = _version(reference["subject"], reference["version"])
        found.append({"name": reference["name"], "subject": reference["subject"], "version": version.version})
    return found


def _is_reference(reference: Mapping[str, Any]) -> bool:
    version = reference.get("version")
    return (
        isinstance(reference.get("name"), str)
        and isinstance(reference.get("subject"), str)
        and isinstance(version, int)
        and not isinstance(version, bool)
    )


def _version(subject_name: str, number: int) -> SchemaVersion:
    """Find the version that a reference names; -1 is the latest."""
    versions = SchemaVersion.objects.select_related("schema").filter(subject__name=subject_name, is_deleted=False)
    found = (versions.filter(version=number) if number != -1 else versions.order_by("version")).last()
    if found is None:
        raise No(42201, f"Invalid schema: no schema reference found for subject {subject_name[:100]} version {number}.")
    return found


def resolved(references: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Give the texts of what references name, each after what it refers to itself."""
    found: dict[str, str] = {}

    def follow(wanted: list[dict[str, Any]]) -> None:
        for reference in wanted:
            if reference["name"] in found:
                continue
            schema = SchemaVersion.objects.select_related("schema").get(
                subject__name=reference["subject"], version=reference["version"]
            ).schema  # fmt: skip
            follow(schema.references)
            found[reference["name"]] = schema.text
            if len(found) > REFERRED_MAX:
                raise No(42201, f"Invalid schema: it refers to more than {REFERRED_MAX} others.")

    follow(references)
    return list(found.items())


def _normal(parsed: Parsed) -> str:
    value = avro.normal(parsed.value) if parsed.type == AVRO else parsed.value
    return json.dumps(value, sort_keys=parsed.type == JSON, separators=(",", ":"), ensure_ascii=False)
