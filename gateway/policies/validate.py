"""``validate``: bodies and messages must satisfy a JSON Schema, those of callers and those of the upstream."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.json_body import (
    bad_answer,
    expects_body,
    read_answer,
    read_body,
    require_json_type,
    require_plain,
    wants_json,
)
from gateway.policies.policy import Answered, BadOption, Policy, Wants, only
from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Checker, compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import DETAIL_MAX_CHARS, dump, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

SCHEMA_MAX_BYTES = 256 * 1024
ERRORS_MAX = 20
ALL_ERRORS_MAX_BYTES = 4096
"""Of a larger payload the first fault alone is told: finding all of them takes time without bound."""


class Validate(Policy):
    """Options: ``schema`` for what callers send, ``outbound_schema`` for what they are given; one of them, or both."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("schema", "outbound_schema"))
        self._inward = _validator(options, "schema")
        self._outward = _validator(options, "outbound_schema")
        if self._inward is None and self._outward is None:
            raise BadOption("schema", "A JSON Schema is needed here, as outbound_schema, or both.")
        self.reads_answers = self._outward is not None

    def has(self, part: str) -> bool:
        """Look only where there is a schema."""
        schema = self._inward if part in ("admit", "message_in") else self._outward
        return super().has(part) and schema is not None

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Refuse a body that is invalid (422), not JSON (400), or of another type (415)."""
        if expects_body(call):
            require_plain(call)
            require_json_type(call)
            body = await call.peer.read_all()
            config = plane.config
            value = read_body(body, depth_max=config.json_depth_max, digits_max=config.number_digits_max)
            self._check_inward(value, len(body))
        return None

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """See answers that are JSON and say that all is well."""
        return wants_json(headers) if 200 <= status < 300 else Wants.NOTHING

    async def answer(self, plane: Plane, call: Call, answered: Answered) -> None:
        """Refuse an answer that is not as the route promises."""
        self._check_outward(read_answer(answered.headers, answered.body))

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Refuse a message that is invalid, or no JSON text."""
        if isinstance(message, bytes):
            raise Refused(Reason.INVALID_PAYLOAD, "Messages here are JSON text, not binary.", members={"pointer": ""})
        self._check_inward(parse(message), len(message))
        return message

    async def message_out(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Refuse a message of the upstream, or of a channel, that is not as the route promises."""
        try:
            value = parse(message)
        except Refused:
            raise bad_answer("A message of the upstream is no JSON.") from None
        self._check_outward(value)
        return message

    def _check_inward(self, value: Any, size: int) -> None:
        assert self._inward is not None, "there is a schema where there is a check"
        first = self._inward.violation(value)
        if first is not None:
            violations = [first]
            if size <= ALL_ERRORS_MAX_BYTES:
                violations = list(islice(self._inward.violations(value), ERRORS_MAX))
            errors = [{"pointer": each.pointer, "detail": each.message[:DETAIL_MAX_CHARS]} for each in violations]
            raise Refused(
                Reason.INVALID_PAYLOAD, errors[0]["detail"], members={"pointer": errors[0]["pointer"], "errors": errors}
            )

    def _check_outward(self, value: Any) -> None:
        assert self._outward is not None, "there is a schema where there is a check"
        violation = self._outward.violation(value)
        if violation is not None:
            # What stands there is the upstream's, and the caller is not to see it: its place is all that is told.
            raise bad_answer(
                "The upstream's answer is not what this route promises.", members={"pointer": violation.pointer}
            )


def _validator(options: Mapping[str, Any], name: str) -> Checker | None:
    schema = options.get(name)
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise BadOption(name, "A JSON Schema is an object.")
    try:
        size = len(dump(dict(schema)))
        if size > SCHEMA_MAX_BYTES:
            raise BadOption(name, f"A JSON Schema holds at most {SCHEMA_MAX_BYTES} bytes.")
        return compile_schema(schema)
    except (InvalidSchema, TypeError) as error:
        raise BadOption(name, str(error)) from None
