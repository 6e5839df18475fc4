"""Schemas of the registry, parsed once with the schemas that they refer to, to check events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from gateway.refusals import Refused
from gateway.schemas import avro, avro_data, json_schema
from gateway.schemas.checker import Checker
from gateway.schemas.effort import Unbounded, effort_of
from gateway.schemas.errors import InvalidSchema
from gateway.wire.strict_json import parse

AVRO, JSON = "AVRO", "JSON"
TYPES = (JSON, AVRO)

Check = Callable[[Any], None]
"""Raises Refused ``invalid-payload`` with the JSON Pointer of the violation."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed schema: its JSON, the JSON of its references, and its check."""

    type: str
    value: Any
    others: Mapping[str, Any]
    """Referenced schemas by name, each after those that it refers to itself."""
    check: Check
    node: avro.Node | None = None
    """The root node of an Avro schema."""
    evaluations: int = 1
    """Most checks that one inner value needs."""


def read(type_: str, text: str, references: Sequence[tuple[str, str]] = ()) -> Parsed:
    """Parse the text of a schema. ``references`` are names and texts, each after those that it refers to itself.

    Raises InvalidSchema.
    """
    value, others = _json(text), {name: _json(other) for name, other in references}
    if type_ == AVRO:
        names: dict[str, avro.Node] = {}
        for other in others.values():
            avro.parse(other, names)
        node = avro.parse(value, names)
        return Parsed(type_, value, others, partial(avro_data.check, node), node)
    if type_ == JSON:
        try:
            effort = effort_of(value, others)
        except Unbounded as error:
            raise InvalidSchema(str(error)) from None
        check = Checker(json_schema.compile_validator(value, others), effort).check
        return Parsed(type_, value, others, check, evaluations=effort.evaluations)
    raise InvalidSchema(f"The type of a schema must be {' or '.join(TYPES)}.")


def _json(text: str) -> Any:
    try:
        return parse(text)
    except Refused as refused:
        raise InvalidSchema(f"The schema is not valid JSON. {refused.detail}") from None


@dataclass(frozen=True)
class Latest:
    """The latest version of a registry subject, by which events of the channels that name it are checked."""

    subject: str
    version: int
    id: int
    type: str
    text: str
    references: tuple[tuple[str, str], ...] = ()
    compatibility: str = ""
    """The level of the subject itself; empty where it has that of all subjects. So is its ``mode``."""
    mode: str = ""

    @cached_property
    def parsed(self) -> Parsed:
        """The parsed schema, parsed on first use. Raises InvalidSchema if this version of the gateway cannot."""
        return read(self.type, self.text, self.references)


def subject_named(schema: Mapping[str, Any] | None) -> str:
    """Return the subject that a channel's schema ``{"subject": …}`` names; empty for an inline schema."""
    subject = schema.get("subject") if schema is not None and len(schema) == 1 else None
    return subject if isinstance(subject, str) else ""
