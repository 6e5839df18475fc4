"""``custom``: a Python function of the operator looks at requests, answers or messages, changes them, or says no."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.hooks import api as hooks
from gateway.hooks import functions
from gateway.policies.json_body import expects_body, is_encoded, replace_body, require_plain
from gateway.policies.policy import Answered, BadOption, Policy, Wants, one_of, only
from gateway.policies.seen import HIDDEN, seen, take_over
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

OPTIONS = ("function", "on", "body", "options")


def custom(options: Mapping[str, Any]) -> Policy:
    """Options: ``function``; ``on``: ``inbound`` (left out), ``outbound`` or ``message``; ``body``; ``options``."""
    only(options, OPTIONS)
    kind = {"inbound": OfRequests, "outbound": OfAnswers, "message": OfMessages}[
        one_of(options, "on", ("inbound", "outbound", "message"), "inbound")
    ]
    return kind(options)


class _Custom(Policy):
    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            self._function = functions.named(options.get("function"))
        except ValueError as error:
            raise BadOption("function", str(error)) from None
        self._sees_body = options.get("body", False)
        if not isinstance(self._sees_body, bool):
            raise BadOption("body", "Must be true or false.")
        own = options.get("options", {})
        if not isinstance(own, Mapping):
            raise BadOption("options", "An object.")
        self._options = dict(own)

    async def _call(self, plane: Plane, call: Call, subject: Any) -> Any:
        """Call the function. Raises Refused where it fails, and where it says no."""
        result = await self._function(plane.config, seen(call), subject, deepcopy(self._options))
        if isinstance(result, hooks.Refuse):
            cause = result.reason.value
            raise Refused(result.reason, result.detail, retry_after_s=result.retry_after_s, cause=cause)
        return result

    def _body(self, value: Any) -> bytes | None:
        try:
            return hooks.written(value)
        except (TypeError, ValueError):
            raise self._function.nonsense("has left a body that is neither bytes, text nor JSON") from None


class OfRequests(_Custom):
    """The function is called ``(call, request, options)`` before the call is handled."""

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Give the function the request."""
        body = None
        if self._sees_body and expects_body(call):
            require_plain(call)
            body = await call.peer.read_all()
        request = hooks.Request(hooks.Headers(call.headers, HIDDEN), body)
        result = await self._call(plane, call, request)
        if isinstance(result, hooks.Answer):
            return self._answered(result)
        if result is not None:
            raise self._function.nonsense(f"has returned {type(result).__name__}, not None, an Answer or a Refuse")
        take_over(call, request.headers)
        if request.body is not body and (changed := self._body(request.body)) != body:
            if not self._sees_body:
                raise self._function.nonsense("has left a body without the option `body`")
            replace_body(call, changed or b"")
        return None

    def _answered(self, answer: hooks.Answer) -> Answered:
        if not isinstance(answer.status, int) or not 200 <= answer.status <= 599:
            raise self._function.nonsense("has answered a status that is none")
        return Answered(answer.status, answer.headers.encoded(), self._body(answer.body))


class OfAnswers(_Custom):
    """The function is called ``(call, answer, options)`` before an answer goes out."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.reads_answers = self._sees_body

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """See each answer; whole where its body is asked for, and is no endless stream."""
        is_stream = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
        return Wants.WHOLE if self._sees_body and not is_stream and not is_encoded(headers) else Wants.HEAD

    async def answer(self, plane: Plane, call: Call, answered: Answered) -> None:
        """Give the function the answer."""
        answer = hooks.Answer(answered.status)
        answer.headers, answer.body = hooks.Headers(answered.headers), answered.body
        result = await self._call(plane, call, answer)
        if result is not None and not isinstance(result, hooks.Answer):
            raise self._function.nonsense(f"has returned {type(result).__name__}, not None, an Answer or a Refuse")
        answer = result or answer
        if isinstance(answer.status, bool) or not isinstance(answer.status, int) or not 200 <= answer.status <= 599:
            raise self._function.nonsense("has left a status that is none")
        body = self._body(answer.body)
        if body != answered.body and answered.body is None:
            raise self._function.nonsense("has left a body without the option `body`")
        answered.status, answered.headers, answered.body = answer.status, answer.headers.encoded(), body


class OfMessages(_Custom):
    """The function is called ``(call, message, options)`` for each message, both ways."""

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Give the function a message of the caller."""
        return await self._passed(plane, call, hooks.Message(message, "in"))

    async def message_out(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Give the function a message to the caller."""
        return await self._passed(plane, call, hooks.Message(message, "out"))

    async def _passed(self, plane: Plane, call: Call, message: hooks.Message) -> str | bytes | None:
        result = await self._call(plane, call, message)
        if result is hooks.DROP:
            return None
        if result is not None:
            raise self._function.nonsense(f"has returned {type(result).__name__}, not None, DROP or a Refuse")
        if not isinstance(message.data, str | bytes):
            raise self._function.nonsense("has left a message that is neither text nor bytes")
        return message.data
