"""A schema of the registry as events are checked by it: read once, with the schemas that it refers to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from gateway.refusals import Refused
from gateway.schemas import avro, avro_data, json_schema
from gateway.schemas.checker import Checker
from gateway.schemas.effort import Unbounded, effort_of
from gateway.schemas.errors import InvalidSchema
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    pass

AVRO, JSON = "AVRO", "JSON"
TYPES = (JSON, AVRO)

Check = Callable[[Any], None]
"""Raises Refused ``invalid-payload`` with the JSON Pointer of the fault."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A schema that was read: its JSON, that of what it refers to, and how data is checked by it."""

    type: str
    value: Any
    others: Mapping[str, Any]
    """By the names that references use, each after those that it refers to itself."""
    check: Check
    node: avro.Node | None = None
    """Of an Avro schema."""


def read(type_: str, text: str, references: Sequence[tuple[str, str]] = ()) -> Parsed:
    """Read a schema, given as text. ``references`` are names with texts, each after what it refers to itself.

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
        return Parsed(type_, value, others, Checker(json_schema.compiled(value, others), effort).check)
    raise InvalidSchema(f"Schemas are of type {' or '.join(TYPES)}.")


def _json(text: str) -> Any:
    try:
        return parse(text)
    except Refused as refused:
        raise InvalidSchema(f"The schema is not JSON that is taken here: {refused.detail}") from None


@dataclass(frozen=True)
class Latest:
    """A subject of the registry with its latest version: what events of channels that name it must be."""

    subject: str
    version: int
    id: int
    type: str
    text: str
    references: tuple[tuple[str, str], ...] = ()

    @cached_property
    def parsed(self) -> Parsed:
        """Read it, once it is needed. Raises InvalidSchema where this version of the gateway cannot."""
        return read(self.type, self.text, self.references)


def subject_named(schema: Mapping[str, Any] | None) -> str:
    """Give the subject that a channel's schema names, ``{"subject": …}``; empty where it is a schema itself."""
    named = schema.get("subject") if schema is not None and len(schema) == 1 else None
    return named if isinstance(named, str) else ""
