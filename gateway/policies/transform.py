"""``transform``: sets, removes and renames members of JSON bodies and messages, by JSON Pointers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.json_body import (
    expects_body,
    invalid_answer,
    is_json,
    read_answer,
    read_body,
    replace_body,
    require_json_type,
    require_plain,
)
from gateway.policies.json_steps import (
    EVERY,
    Pointer,
    Step,
    apply_steps,
    remove_step,
    rename_step,
    set_step,
    wildcard_end,
)
from gateway.policies.options import BadOption, allow_only, choice
from gateway.policies.policy import Build, OutgoingAnswer, Policy, Wants
from gateway.refusals import Reason, Refused
from gateway.wire.event_stream import is_event_stream
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import dump, parse

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.side_thread import SideThreads

STEPS_MAX = 100
DEPTH_MAX = 32
VALUE_MAX_BYTES = 16 * 1024


def transform(options: Mapping[str, Any]) -> Build:
    """Read the options: ``inbound`` and ``outbound``, each with ``rename``, ``remove`` and ``set``, in this order.

    ``on_other``: ``pass`` (default) passes what is not JSON unchanged, ``refuse`` refuses it.
    """
    allow_only(options, ("inbound", "outbound", "on_other"))
    inbound, outbound = _steps(options, "inbound"), _steps(options, "outbound")
    if not inbound and not outbound:
        raise BadOption("inbound", "Steps are required: in inbound, outbound, or both.")
    refuses_others = choice(options, "on_other", ("pass", "refuse"), "pass") == "refuse"
    return lambda dependencies: Transform(
        inbound, outbound, dependencies.config, dependencies.side_threads, refuses_others=refuses_others
    )


class Transform(Policy):
    """Changes JSON on its way in and out."""

    def __init__(
        self,
        inbound: list[Step],
        outbound: list[Step],
        config: Config,
        side_threads: SideThreads,
        *,
        refuses_others: bool,
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._config = config
        self._side_threads = side_threads
        self._refuses_others = refuses_others
        self.reads_answers = bool(outbound)

    def has(self, method: str) -> bool:
        """Return whether the method does anything: only where there are steps for that direction."""
        steps = self._inbound if method in ("admit", "message_in") else self._outbound
        return super().has(method) and bool(steps)

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Change the body of a request. Raises Refused for a body that is declared as JSON and is not."""
        if not expects_body(call) or not (self._refuses_others or is_json(call.headers, default=True)):
            return None
        require_json_type(call)
        require_plain(call)
        body = await call.peer.read_all()
        if body or self._refuses_others:
            replace_body(call, await self._run(call, self._changed_body, body))
        return None

    async def _run(self, call: Call, change: Callable[..., bytes], *arguments: Any) -> bytes:
        """Return the text that is the last of the arguments, changed. Raises Refused."""
        return await self._side_threads.run(call.caller.consumer, len(arguments[-1]), change, *arguments)

    def _changed_body(self, body: bytes) -> bytes:
        config = self._config
        value = read_body(body, depth_max=config.json_depth_max, digits_max=config.number_digits_max)
        return dump(apply_steps(self._inbound, value))

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """Return ``WHOLE`` for answers that are JSON, and for those that have to be under ``on_other: refuse``.

        The events of a stream are looked at one by one.
        """
        refuses_others = self._refuses_others and 200 <= status < 300 and not is_event_stream(headers)
        is_wanted = is_json(headers, default=False) or refuses_others
        return Wants.WHOLE if is_wanted else Wants.NOTHING

    async def answer(self, call: Call, answer: OutgoingAnswer) -> None:
        """Change the body of an answer. Raises Refused where it is not JSON."""
        if not is_json(answer.headers, default=False):
            raise invalid_answer("The upstream's answer is not JSON.")
        if answer.body:
            answer.body = await self._run(call, self._changed_answer, answer.headers, answer.body)

    def _changed_answer(self, headers: Headers, body: bytes) -> bytes:
        return dump(apply_steps(self._outbound, read_answer(headers, body)))

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return the changed message of the caller."""
        try:
            return (await self._run(call, _changed_message, self._inbound, message)).decode()
        except Refused as refused:
            if self._refuses_others or refused.reason is not Reason.INVALID_PAYLOAD:
                raise
            return message

    async def message_out(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return the changed message to the caller."""
        try:
            return (await self._run(call, _changed_message, self._outbound, message)).decode()
        except Refused as refused:
            if refused.reason is not Reason.INVALID_PAYLOAD:
                raise
            if self._refuses_others:
                raise invalid_answer("A message of the upstream is not JSON.") from None
            return message


def _changed_message(steps: list[Step], message: str | bytes) -> bytes:
    if isinstance(message, bytes):
        raise Refused(
            Reason.INVALID_PAYLOAD, "Messages must be JSON text; this one is binary.", members={"pointer": ""}
        )
    return dump(apply_steps(steps, parse(message)))


# Options


def _steps(options: Mapping[str, Any], side: str) -> list[Step]:
    changes = options.get(side)
    if changes is None:
        return []
    if not isinstance(changes, Mapping):
        raise BadOption(side, "Must be an object with rename, remove and set.")
    allow_only(changes, ("rename", "remove", "set"), f"{side}.")
    steps = [*_renames(changes, side), *_removes(changes, side), *_sets(changes, side)]
    if len(steps) > STEPS_MAX:
        raise BadOption(side, f"May have at most {STEPS_MAX} steps.")
    return steps


def _renames(changes: Mapping[str, Any], side: str) -> Iterator[Step]:
    for source, target in _object(changes, "rename", side).items():
        at = f"{side}.rename.{source}"
        old, new = _pointer(source, at), _pointer(target, at)
        if not old or not new:
            raise BadOption(at, "The whole document cannot be renamed.")
        every = wildcard_end(old)
        if old[:every] != new[:every] or EVERY in new[every:]:
            raise BadOption(at, "Both pointers must be the same up to the last *.")
        if every in (len(old), len(new)):
            raise BadOption(at, "A name is required after the last *.")
        yield rename_step(old[:every], old[every:], new[every:])


def _removes(changes: Mapping[str, Any], side: str) -> Iterator[Step]:
    pointers = changes.get("remove", [])
    if not isinstance(pointers, list):
        raise BadOption(f"{side}.remove", "Must be a list of JSON Pointers.")
    for number, text in enumerate(pointers):
        at = f"{side}.remove[{number}]"
        pointer = _pointer(text, at)
        if not pointer:
            raise BadOption(at, "The whole document cannot be removed.")
        yield remove_step(pointer)


def _sets(changes: Mapping[str, Any], side: str) -> Iterator[Step]:
    for text, value in _object(changes, "set", side).items():
        at = f"{side}.set.{text}"
        try:
            is_small = len(dump(value)) <= VALUE_MAX_BYTES
        except (TypeError, ValueError):
            raise BadOption(at, "The value cannot be written as JSON.") from None
        if not is_small:
            raise BadOption(at, f"A value may have at most {VALUE_MAX_BYTES} bytes.")
        yield set_step(_pointer(text, at), value)


def _object(changes: Mapping[str, Any], name: str, side: str) -> Mapping[str, Any]:
    value = changes.get(name, {})
    if not isinstance(value, Mapping):
        raise BadOption(f"{side}.{name}", "Must be an object whose names are JSON Pointers.")
    return value


def _pointer(text: Any, at: str) -> Pointer:
    """Parse a JSON Pointer (RFC 6901, 3). Raises BadOption."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadOption(at, "A JSON Pointer must begin with a slash, such as /user/name.")
    levels = tuple(level.replace("~1", "/").replace("~0", "~") for level in text.split("/")[1:])
    if len(levels) > DEPTH_MAX:
        raise BadOption(at, f"A JSON Pointer may have at most {DEPTH_MAX} levels.")
    return levels
