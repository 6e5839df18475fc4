"""JSON values checked by JSON Schemas, with a bound on what one check may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jsonschema_rs

from gateway.schemas.effort import SMALL, Effort, Unbounded, effort_of
from gateway.schemas.errors import InvalidSchema
from gateway.wire.strict_json import fail, pointer, shortened

_COMPILED_MAX = 4096


class Validators:
    """A cache of compiled schemas: each is compiled once for as long as the same schema object is in use."""

    def __init__(self) -> None:
        self._compiled: dict[int, tuple[Mapping[str, Any], Checker]] = {}

    def check(self, schema: Mapping[str, Any] | None, value: Any) -> None:
        """Raise Refused ``invalid-payload`` with the JSON Pointer of the violation if the value is invalid."""
        self.check_of(schema)(value)

    def check_of(self, schema: Mapping[str, Any] | None) -> Callable[[Any], None]:
        """Return the check by a schema, which raises Refused as :meth:`check` does."""
        return _accept if schema is None else self._checker(schema).check

    def evaluations_of(self, schema: Mapping[str, Any] | None) -> int:
        """Return how many checks a schema needs at most for each inner value."""
        return 1 if schema is None else self._checker(schema).effort.evaluations

    def _checker(self, schema: Mapping[str, Any]) -> Checker:
        cached = self._compiled.get(id(schema))
        if cached is not None and cached[0] is schema:
            return cached[1]
        if len(self._compiled) >= _COMPILED_MAX:
            self._compiled.clear()
        checker = compile_schema(schema)
        self._compiled[id(schema)] = (schema, checker)
        return checker


@dataclass(frozen=True, slots=True)
class Checker:
    """A compiled schema and the effort that checking a value by it takes."""

    validator: jsonschema_rs.Validator
    effort: Effort

    def is_valid(self, value: Any) -> bool:
        """Return whether a value is valid; a value that would take too long to check is not."""
        return self.effort.allows_checking(value) and self.validator.is_valid(value)

    def check(self, value: Any) -> None:
        """Raise Refused ``invalid-payload`` with the JSON Pointer of the violation if the value is invalid."""
        if self.effort.evaluations <= SMALL and self.validator.is_valid(value):
            return
        violation = self.violation(value)
        if violation is not None:
            fail(shortened(violation.message), violation.pointer)

    def violation(self, value: Any) -> Violation | None:
        """Return the first violation, without its place if the schema's branches make that too long to find."""
        if not self.effort.allows_checking(value):
            return Violation("The value is too large to be checked by this schema. Send a smaller one.", "")
        if self.validator.is_valid(value):
            return None
        if not self.effort.allows_describing(value):
            return Violation("The value does not match its schema; it is too large to locate the error.", "")
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return _violation(error)
        return None

    def violations(self, value: Any) -> Iterator[Violation]:
        """Yield every violation, or only one without its place if describing them all would take too long."""
        first = self.violation(value)
        if first is not None and self.effort.allows_describing(value):
            yield from map(_violation, self.validator.iter_errors(value))
        elif first is not None:
            yield first


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a value does not match its schema."""

    message: str
    pointer: str
    """JSON Pointer of the offending part of the value."""


def compile_schema(schema: Mapping[str, Any] | bool) -> Checker:
    """Compile a JSON Schema. Raises InvalidSchema.

    External references are never fetched, and patterns run on a linear-time engine (so look-around is invalid).
    """
    plain = schema if isinstance(schema, bool) else dict(schema)
    try:
        effort = effort_of(plain)
        validator = jsonschema_rs.validator_for(
            plain,
            retriever=_refuse_to_fetch,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=True,
        )
    except (Unbounded, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise InvalidSchema(shortened(getattr(error, "message", None) or str(error))) from None
    return Checker(validator, effort)


def _accept(value: Any) -> None:
    """Accept any value: there is no schema."""


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    return Violation(error.message, pointer(error.instance_path))


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"references are not fetched: {uri}")
