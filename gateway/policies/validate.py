"""``validate``: bodies and messages must satisfy a JSON Schema, those of callers and those of the upstream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.json_body import (
    expects_body,
    invalid_answer,
    read_answer,
    read_body,
    require_json_type,
    require_plain,
    wants_json,
)
from gateway.policies.options import BadOption, allow_only
from gateway.policies.policy import Build, OutgoingAnswer, Policy, Wants
from gateway.refusals import Reason, Refused
from gateway.schemas.checker import Checker, compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.side_thread import SideThreads, weight_of
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import DETAIL_MAX_CHARS, dump, parse

if TYPE_CHECKING:
    from gateway.config import Config

SCHEMA_MAX_BYTES = 256 * 1024
ERRORS_MAX = 20
ALL_ERRORS_MAX_BYTES = 4096
"""For a larger payload only the first error is reported: the time to find all of them has no bound."""


def validate(options: Mapping[str, Any]) -> Build:
    """Read the options: ``schema`` for what callers send, ``outbound_schema`` for what they receive, or both."""
    allow_only(options, ("schema", "outbound_schema"))
    inbound, outbound = _checker(options, "schema"), _checker(options, "outbound_schema")
    if inbound is None and outbound is None:
        raise BadOption("schema", "A JSON Schema is required: as schema, outbound_schema, or both.")
    return lambda dependencies: Validate(inbound, outbound, dependencies.config, dependencies.side_threads)


class Validate(Policy):
    """Refuses requests, answers and messages that do not satisfy a schema."""

    def __init__(
        self, inbound: Checker | None, outbound: Checker | None, config: Config, side_threads: SideThreads
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._config = config
        self._side_threads = side_threads
        self.reads_answers = outbound is not None

    def has(self, method: str) -> bool:
        """Return whether the method does anything: only where there is a schema for that direction."""
        schema = self._inbound if method in ("admit", "message_in") else self._outbound
        return super().has(method) and schema is not None

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Refuse a body that is invalid (422), not JSON (400), or of another content type (415)."""
        if expects_body(call):
            require_plain(call)
            require_json_type(call)
            body = await call.peer.read_all()
            await self._run(call, self._inbound, self._check_body, body)
        return None

    async def _run(self, call: Call, checker: Checker | None, check: Callable[..., None], *arguments: Any) -> None:
        """Check the text that is the last of the arguments. Raises Refused."""
        evaluations = checker.effort.evaluations if checker is not None else 1
        weight = weight_of(len(arguments[-1] or ()), evaluations)
        await self._side_threads.run(call.caller.consumer, weight, check, *arguments)

    def _check_body(self, body: bytes) -> None:
        config = self._config
        value = read_body(body, depth_max=config.json_depth_max, digits_max=config.number_digits_max)
        self._check_inbound(value, len(body))

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """Return ``WHOLE`` for successful answers that are JSON."""
        return wants_json(headers) if 200 <= status < 300 else Wants.NOTHING

    async def answer(self, call: Call, answer: OutgoingAnswer) -> None:
        """Raise Refused for an answer that does not satisfy the schema."""
        await self._run(call, self._outbound, self._check_answer, answer.headers, answer.body)

    def _check_answer(self, headers: Headers, body: bytes | None) -> None:
        self._check_outbound(read_answer(headers, body))

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Raise Refused for a message that is invalid, or not JSON text."""
        if isinstance(message, bytes):
            raise Refused(
                Reason.INVALID_PAYLOAD, "Messages must be JSON text; this one is binary.", members={"pointer": ""}
            )
        await self._run(call, self._inbound, self._check_message_in, message)
        return message

    def _check_message_in(self, message: str) -> None:
        self._check_inbound(parse(message), len(message))

    async def message_out(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Raise Refused for a message of the upstream, or an event of a channel, that is invalid."""
        await self._run(call, self._outbound, self._check_message_out, message)
        return message

    def _check_message_out(self, message: str | bytes) -> None:
        try:
            value = parse(message)
        except Refused:
            raise invalid_answer("A message of the upstream is not JSON.") from None
        self._check_outbound(value)

    def _check_inbound(self, value: Any, size: int) -> None:
        assert self._inbound is not None, "only called where there is a schema"
        first = self._inbound.violation(value)
        if first is not None:
            violations = [first]
            if size <= ALL_ERRORS_MAX_BYTES:
                violations = list(islice(self._inbound.violations(value), ERRORS_MAX))
            errors = [{"pointer": each.pointer, "detail": each.message[:DETAIL_MAX_CHARS]} for each in violations]
            raise Refused(
                Reason.INVALID_PAYLOAD, errors[0]["detail"], members={"pointer": errors[0]["pointer"], "errors": errors}
            )

    def _check_outbound(self, value: Any) -> None:
        assert self._outbound is not None, "only called where there is a schema"
        violation = self._outbound.violation(value)
        if violation is not None:
            # The invalid value is the upstream's and not for the caller to see: only its place is reported.
            raise invalid_answer(
                "The upstream's answer does not satisfy the schema of this route.",
                members={"pointer": violation.pointer},
            )


def _checker(options: Mapping[str, Any], name: str) -> Checker | None:
    schema = options.get(name)
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise BadOption(name, "A JSON Schema must be an object.")
    try:
        size = len(dump(dict(schema)))
        if size > SCHEMA_MAX_BYTES:
            raise BadOption(name, f"A JSON Schema may have at most {SCHEMA_MAX_BYTES} bytes.")
        return compile_schema(schema)
    except (InvalidSchema, TypeError) as error:
        raise BadOption(name, str(error)) from None
