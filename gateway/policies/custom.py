"""``custom``: a hook, a Python function of the operator, checks or changes requests, answers or messages."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.hooks import api as hooks
from gateway.hooks.loading import load
from gateway.policies.hook_view import HIDDEN, apply_header_changes, hook_call
from gateway.policies.json_body import expects_body, is_encoded, replace_body, require_plain
from gateway.policies.options import BadOption, allow_only, choice, flag
from gateway.policies.policy import Build, OutgoingAnswer, Policy, Wants
from gateway.refusals import Refused
from gateway.wire.event_stream import is_event_stream
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.hooks.functions import HookFunction

OPTIONS = ("function", "on", "body", "options")


def custom(options: Mapping[str, Any]) -> Build:
    """Read the options: ``function``, ``on`` (``inbound`` by default), ``body`` and ``options``."""
    allow_only(options, OPTIONS)
    policy = {"inbound": RequestHook, "outbound": AnswerHook, "message": MessageHook}[
        choice(options, "on", ("inbound", "outbound", "message"), "inbound")
    ]
    name = options.get("function")
    try:
        function = load(name)
    except ValueError as error:
        raise BadOption("function", str(error)) from None
    reads_body = flag(options, "body")
    arguments = options.get("options", {})
    if not isinstance(arguments, Mapping):
        raise BadOption("options", "Must be an object.")
    return lambda dependencies: policy(
        HookCaller(dependencies.hooks.function(str(name), function), dict(arguments)), reads_body=reads_body
    )


@dataclass(frozen=True, slots=True)
class HookCaller:
    """Calls one hook with the options that the route gives it."""

    function: HookFunction
    options: dict[str, Any]

    async def result(self, call: Call, subject: Any) -> Any:
        """Return what the hook returned. Raises Refused where it fails, and where it refuses."""
        result = await self.function(hook_call(call), subject, deepcopy(self.options))
        if isinstance(result, hooks.Refuse):
            cause = result.reason.value
            raise Refused(result.reason, result.detail, retry_after_s=result.retry_after_s, cause=cause)
        return result

    def body(self, value: Any) -> bytes | None:
        """Return a body that the hook left, as bytes. Raises Refused ``internal`` where it cannot be sent."""
        try:
            return hooks.encode_body(value)
        except (TypeError, ValueError):
            raise self.function.invalid_result("set a body that is neither bytes, text nor JSON") from None

    def unexpected(self, result: Any, allowed: str) -> Refused:
        """Return the refusal for a result of the wrong type."""
        return self.function.invalid_result(f"returned {type(result).__name__}, not {allowed}")


class RequestHook(Policy):
    """The hook is called as ``(call, request, options)`` before the call is handled."""

    def __init__(self, hook: HookCaller, *, reads_body: bool) -> None:
        self._hook = hook
        self._reads_body = reads_body

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Call the hook with the request; apply its changes, or return its answer."""
        body = None
        if self._reads_body and expects_body(call):
            require_plain(call)
            body = await call.peer.read_all()
        request = hooks.Request(hooks.Headers(call.headers, HIDDEN), body)
        result = await self._hook.result(call, request)
        if isinstance(result, hooks.Answer):
            return self._answer(result)
        if result is not None:
            raise self._hook.unexpected(result, "None, an Answer or a Refuse")
        apply_header_changes(call, request.headers)
        if request.body is not body and (changed := self._hook.body(request.body)) != body:
            if not self._reads_body:
                raise self._hook.function.invalid_result("set a body without the option `body`")
            replace_body(call, changed or b"")
        return None

    def _answer(self, answer: hooks.Answer) -> OutgoingAnswer:
        if not _is_status(answer.status):
            raise self._hook.function.invalid_result("answered with an invalid status")
        return OutgoingAnswer(answer.status, answer.headers.encoded(), self._hook.body(answer.body))


class AnswerHook(Policy):
    """The hook is called as ``(call, answer, options)`` before an answer is sent."""

    def __init__(self, hook: HookCaller, *, reads_body: bool) -> None:
        self._hook = hook
        self._reads_body = self.reads_answers = reads_body

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """Return ``WHOLE`` where the body is wanted and can be had: not of event streams, nor compressed."""
        has_whole = not is_event_stream(headers) and not is_encoded(headers)
        return Wants.WHOLE if self._reads_body and has_whole else Wants.HEAD

    async def answer(self, call: Call, answer: OutgoingAnswer) -> None:
        """Call the hook with the answer, and apply its changes."""
        shown = hooks.Answer(answer.status)
        shown.headers, shown.body = hooks.Headers(answer.headers), answer.body
        result = await self._hook.result(call, shown)
        if result is not None and not isinstance(result, hooks.Answer):
            raise self._hook.unexpected(result, "None, an Answer or a Refuse")
        changed = result or shown
        if not _is_status(changed.status):
            raise self._hook.function.invalid_result("set an invalid status")
        body = self._hook.body(changed.body)
        if body != answer.body and answer.body is None:
            raise self._hook.function.invalid_result("set a body without the option `body`")
        answer.status, answer.headers, answer.body = changed.status, changed.headers.encoded(), body


class MessageHook(Policy):
    """The hook is called as ``(call, message, options)`` for each message, in both directions."""

    def __init__(self, hook: HookCaller, *, reads_body: bool) -> None:
        self._hook = hook

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return the caller's message as the hook left it."""
        return await self._passed(call, hooks.Message(message, "in"))

    async def message_out(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return the message to the caller as the hook left it."""
        return await self._passed(call, hooks.Message(message, "out"))

    async def _passed(self, call: Call, message: hooks.Message) -> str | bytes | None:
        result = await self._hook.result(call, message)
        if result is hooks.DROP:
            return None
        if result is not None:
            raise self._hook.unexpected(result, "None, DROP or a Refuse")
        if not isinstance(message.data, str | bytes):
            raise self._hook.function.invalid_result("set a message that is neither text nor bytes")
        return message.data


def _is_status(status: Any) -> bool:
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599
