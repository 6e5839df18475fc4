"""``transform``: members of JSON bodies and messages are set, removed and renamed, by JSON Pointers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.json_body import (
    bad_answer,
    expects_body,
    is_json,
    read_answer,
    read_body,
    replace_body,
    require_json_type,
    require_plain,
)
from gateway.policies.policy import Answered, BadOption, Policy, Wants, one_of, only
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import dump, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

STEPS_MAX = 100
DEPTH_MAX = 32
VALUE_MAX_BYTES = 16 * 1024
EVERY, END = "*", "-"
Pointer = tuple[str, ...]
Step = Callable[[Any], Any]
"""Takes a document, and gives it as it is then."""


class Transform(Policy):
    """Options: ``inbound`` and ``outbound``, each with ``rename``, ``remove`` and ``set``, done in this order.

    ``on_other``: ``pass`` (left out) lets what is not JSON through as it is, ``refuse`` refuses it.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("inbound", "outbound", "on_other"))
        self._inward = _steps(options, "inbound")
        self._outward = _steps(options, "outbound")
        if not self._inward and not self._outward:
            raise BadOption("inbound", "Steps are needed here, in outbound, or both.")
        self._refuses_others = one_of(options, "on_other", ("pass", "refuse"), "pass") == "refuse"
        self.reads_answers = bool(self._outward)

    def has(self, part: str) -> bool:
        """Look only where there are steps."""
        steps = self._inward if part in ("admit", "message_in") else self._outward
        return super().has(part) and bool(steps)

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Change the body of a request."""
        if not expects_body(call) or not (self._refuses_others or is_json(call.headers, unsaid=True)):
            return None
        require_json_type(call)
        require_plain(call)
        body = await call.peer.read_all()
        if body or self._refuses_others:
            config = plane.config
            value = read_body(body, depth_max=config.json_depth_max, digits_max=config.number_digits_max)
            replace_body(call, dump(_done(self._inward, value)))
        return None

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """See answers that are JSON; or that ought to be, where there is a body."""
        is_wanted = is_json(headers, unsaid=False) or (self._refuses_others and 200 <= status < 300)
        return Wants.WHOLE if is_wanted else Wants.NOTHING

    async def answer(self, plane: Plane, call: Call, answered: Answered) -> None:
        """Change the body of an answer."""
        if not is_json(answered.headers, unsaid=False):
            raise bad_answer("The upstream's answer is not JSON.")
        if answered.body:
            answered.body = dump(_done(self._outward, read_answer(answered.headers, answered.body)))

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Change a message of the caller."""
        try:
            value = _read(message)
        except Refused:
            if self._refuses_others:
                raise
            return message
        return dump(_done(self._inward, value)).decode()

    async def message_out(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Change a message to the caller."""
        try:
            value = _read(message)
        except Refused:
            if self._refuses_others:
                raise bad_answer("A message of the upstream is no JSON.") from None
            return message
        return dump(_done(self._outward, value)).decode()


def _read(message: str | bytes) -> Any:
    if isinstance(message, bytes):
        raise Refused(Reason.INVALID_PAYLOAD, "Messages here are JSON text, not binary.", members={"pointer": ""})
    return parse(message)


def _done(steps: list[Step], value: Any) -> Any:
    for step in steps:
        value = step(value)
    return value


def _steps(options: Mapping[str, Any], side: str) -> list[Step]:
    given = options.get(side)
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise BadOption(side, "An object with rename, remove and set.")
    only(given, ("rename", "remove", "set"), f"{side}.")
    steps = [*_renames(given, side), *_removes(given, side), *_sets(given, side)]
    if len(steps) > STEPS_MAX:
        raise BadOption(side, f"At most {STEPS_MAX} steps.")
    return steps


def _renames(given: Mapping[str, Any], side: str) -> Iterator[Step]:
    for source, target in _object(given, "rename", side).items():
        at = f"{side}.rename.{source}"
        old, new = _pointer(source, at), _pointer(target, at)
        if not old or not new:
            raise BadOption(at, "The whole document has no other name.")
        every = next((number for number in range(len(old), 0, -1) if old[number - 1] == EVERY), 0)
        if old[:every] != new[:every] or EVERY in new[every:]:
            raise BadOption(at, "Both names are the same up to the last *.")
        yield _rename(old[:every], old[every:], new[every:], at)


def _removes(given: Mapping[str, Any], side: str) -> Iterator[Step]:
    pointers = given.get("remove", [])
    if not isinstance(pointers, list):
        raise BadOption(f"{side}.remove", "A list of JSON Pointers.")
    for number, text in enumerate(pointers):
        at = f"{side}.remove[{number}]"
        pointer = _pointer(text, at)
        if not pointer:
            raise BadOption(at, "The whole document cannot be removed.")
        yield _remove(pointer)


def _sets(given: Mapping[str, Any], side: str) -> Iterator[Step]:
    for text, value in _object(given, "set", side).items():
        at = f"{side}.set.{text}"
        try:
            is_small = len(dump(value)) <= VALUE_MAX_BYTES
        except (TypeError, ValueError):
            raise BadOption(at, "The value is no JSON.") from None
        if not is_small:
            raise BadOption(at, f"A value holds at most {VALUE_MAX_BYTES} bytes.")
        yield _set(_pointer(text, at), value)


def _object(given: Mapping[str, Any], name: str, side: str) -> Mapping[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, Mapping):
        raise BadOption(f"{side}.{name}", "An object whose names are JSON Pointers.")
    return value


def _pointer(text: Any, at: str) -> Pointer:
    """Read a JSON Pointer (RFC 6901); a level ``*`` is every member or element."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadOption(at, "A JSON Pointer begins with a slash, such as /user/name.")
    levels = tuple(level.replace("~1", "/").replace("~0", "~") for level in text.split("/")[1:])
    if len(levels) > DEPTH_MAX:
        raise BadOption(at, f"A JSON Pointer has at most {DEPTH_MAX} levels.")
    return levels


def _remove(pointer: Pointer) -> Step:
    def step(document: Any) -> Any:
        for holder in _found(document, pointer[:-1]):
            _take(holder, pointer[-1])
        return document

    return step


def _rename(shared: Pointer, old: Pointer, new: Pointer, at: str) -> Step:
    if not old or not new:
        raise BadOption(at, "A name is needed after the last *.")

    def step(document: Any) -> Any:
        for node in _found(document, shared):
            for holder in _found(node, old[:-1]):
                taken = _take(holder, old[-1])
                if taken is not None and not _put(node, new, taken[0]):
                    _put(holder, old[-1:], taken[0])
        return document

    return step


def _set(pointer: Pointer, value: Any) -> Step:
    every = next((number for number in range(len(pointer), 0, -1) if pointer[number - 1] == EVERY), 0)

    def step(document: Any) -> Any:
        if not pointer:
            return deepcopy(value)
        if every == len(pointer):
            for holder in _found(document, pointer[:-1]):
                for key in _keys(holder):
                    holder[key] = deepcopy(value)
        else:
            for node in _found(document, pointer[:every]):
                _put(node, pointer[every:], deepcopy(value))
        return document

    return step


def _found(node: Any, pointer: Pointer) -> list[Any]:
    """Give all that a pointer leads to, nothing where it leads nowhere."""
    nodes = [node]
    for level in pointer:
        nodes = [found for node in nodes for found in _next(node, level)]
    return nodes


def _next(node: Any, level: str) -> list[Any]:
    if level == EVERY:
        return [node[key] for key in _keys(node)]
    if isinstance(node, dict):
        return [node[level]] if level in node else []
    number = _index(node, level)
    return [] if number is None else [node[number]]


def _keys(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node)
    return list(range(len(node))) if isinstance(node, list) else []


def _index(node: Any, level: str) -> int | None:
    """Give the place in a list that a level names (RFC 6901 4), None where there is none."""
    if not isinstance(node, list) or not (level.isascii() and level.isdigit()) or (level[0] == "0" and level != "0"):
        return None
    return int(level) if len(level) < 10 and int(level) < len(node) else None


def _take(holder: Any, level: str) -> tuple[Any] | None:
    """Take a member or element out; None where there is none."""
    if level == EVERY:
        if isinstance(holder, dict | list):
            holder.clear()
        return None
    if isinstance(holder, dict):
        return (holder.pop(level),) if level in holder else None
    number = _index(holder, level)
    return None if number is None else (holder.pop(number),)


def _put(node: Any, pointer: Pointer, value: Any) -> bool:
    """Put a value where a pointer says; objects on the way are made. False: something there cannot hold it."""
    for level in pointer[:-1]:
        if isinstance(node, dict):
            node = node.setdefault(level, {})
        elif (number := _index(node, level)) is not None:
            node = node[number]
        else:
            return False
    last = pointer[-1]
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and last == END:
        node.append(value)
    elif (number := _index(node, last)) is not None:
        node[number] = value
    else:
        return False
    return True
