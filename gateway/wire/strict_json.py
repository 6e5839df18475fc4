"""Whether bytes are a payload we take: strict JSON within bounds, and valid by the channel's schema."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from gateway.refusals import Reason, Refused
from gateway.wire.effort import Effort, Unbounded, effort_of

DEPTH_MAX = 64
DIGITS_MAX = 400
DETAIL_MAX_CHARS = 300
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]+")
_BEYOND_64_BITS = re.compile(rb"[0-9]{18}")
_COMPILED_MAX = 4096


class Duplicate(ValueError):
    """An object names a member twice."""


class InvalidSchema(ValueError):
    """The schema cannot be used; its message may be shown to whoever wrote it."""


def parse(data: bytes | str, *, depth_max: int = DEPTH_MAX, digits_max: int = DIGITS_MAX) -> Any:
    """Read JSON text. Raises Refused ``invalid-payload`` for what is not strict JSON or exceeds a bound.

    Refused too: NaN and Infinity, members named twice, lone surrogates, bad UTF-8. Numbers keep all their digits.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        fail(f"The payload is not JSON: {error}.")
    bare = _STRING.sub(b"", raw)
    if bare.count(b"[") + bare.count(b"{") > depth_max and _depth(bare) > depth_max:
        fail(f"The payload is nested more than {depth_max} levels deep.")
    if len(bare) > digits_max and any(len(number) > digits_max for number in _LONG_NUMBER.findall(bare)):
        fail(f"A number of the payload has more than {digits_max} digits.")
    members = bare.count(b":")
    is_flat = isinstance(value, dict) and len(value) == members
    if (members > 1 and not is_flat) or _BEYOND_64_BITS.search(bare):
        return _read_exactly(raw)
    return value


def dump(value: Any) -> bytes:
    """Write a value that :func:`parse` gave as compact JSON, with every digit of its integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Validators:
    """Compiled schemas, each compiled once for as long as the same schema object is in use."""

    def __init__(self) -> None:
        self._compiled: dict[int, tuple[Mapping[str, Any], Checker]] = {}

    def check(self, schema: Mapping[str, Any] | None, value: Any) -> None:
        """Raise Refused ``invalid-payload`` with the JSON Pointer of the fault where the value is invalid."""
        if schema is None:
            return
        self._checker(schema).check(value)

    def _checker(self, schema: Mapping[str, Any]) -> Checker:
        known = self._compiled.get(id(schema))
        if known is not None and known[0] is schema:
            return known[1]
        if len(self._compiled) >= _COMPILED_MAX:
            self._compiled.clear()
        checker = compile_schema(schema)
        self._compiled[id(schema)] = (schema, checker)
        return checker


@dataclass(frozen=True, slots=True)
class Checker:
    """A compiled schema, with what checking by it may take."""

    validator: jsonschema_rs.Validator
    effort: Effort

    def is_valid(self, value: Any) -> bool:
        """Say whether a value is valid; one that would take too long is not."""
        return self.effort.allows_checking(value) and self.validator.is_valid(value)

    def check(self, value: Any) -> None:
        """Raise Refused ``invalid-payload`` with the JSON Pointer of the fault where the value is invalid."""
        fault = self.fault(value)
        if fault is not None:
            fail(_cut(fault.said), fault.pointer)

    def fault(self, value: Any) -> Fault | None:
        """Say what is wrong with a value; where its schema's branches make that long to find, only that it is."""
        if not self.effort.allows_checking(value):
            return Fault("It is too large to be checked by its schema, which asks for much of each value.", "")
        if self.validator.is_valid(value):
            return None
        if not self.effort.allows_describing(value):
            return Fault("It is not as its schema says; it is too large to say where.", "")
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return _fault(error)
        return None

    def faults(self, value: Any) -> Iterator[Fault]:
        """Give all that is wrong with a value, as far as it can be said."""
        first = self.fault(value)
        if first is not None and self.effort.allows_describing(value):
            yield from map(_fault, self.validator.iter_errors(value))
        elif first is not None:
            yield first


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a value, and where."""

    said: str
    pointer: str


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    return Fault(error.message, pointer(error.instance_path))


def compile_schema(schema: Mapping[str, Any] | bool) -> Checker:
    """Compile a JSON Schema. Raises InvalidSchema.

    A reference out of the schema is never fetched, and patterns run on a linear-time engine (so no look-around).
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
        raise InvalidSchema(_cut(getattr(error, "message", None) or str(error))) from None
    return Checker(validator, effort)


def pointer(path: list[str | int]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def fail(detail: str, at: str = "") -> NoReturn:
    """Refuse the payload for a fault at a JSON Pointer."""
    raise Refused(Reason.INVALID_PAYLOAD, detail, members={"pointer": at})


def _read_exactly(raw: bytes) -> Any:
    """Read JSON already known to be well-formed, with members named twice refused and integers whole."""
    try:
        return _EXACT.decode(raw.decode())
    except Duplicate as error:
        fail(f"The payload names the member {_cut(str(error))!r} twice in one object.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Duplicate(next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1))
    return found


_EXACT = json.JSONDecoder(object_pairs_hook=_members)


def _depth(bare: bytes) -> int:
    deepest = depth = 0
    for char in bare:
        if char in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in b"]}":
            depth -= 1
    return deepest


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"references are not fetched: {uri}")


def _cut(text: str) -> str:
    return text if len(text) <= DETAIL_MAX_CHARS else text[: DETAIL_MAX_CHARS - 1] + "…"
