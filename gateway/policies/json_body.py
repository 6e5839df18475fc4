"""JSON bodies as policies read them: what counts as JSON, and the refusals for what does not."""

from __future__ import annotations

from typing import Any

from gateway.call import Call
from gateway.policies.policy import Wants
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.wire import content_types
from gateway.wire.event_stream import media_type
from gateway.wire.header_fields import Headers, has_body
from gateway.wire.strict_json import parse

METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"content-md5", b"digest", b"content-digest"})


def header_of(headers: Headers, name: bytes) -> bytes:
    """Return the first header of that name, empty where there is none."""
    return next((value for key, value in headers if key == name), b"")


def is_json(headers: Headers, *, default: bool) -> bool:
    """Return whether the content type is JSON; ``default`` where there is none."""
    essence = media_type(headers)
    return default if not essence else content_types.is_json(essence)


def is_encoded(headers: Headers) -> bool:
    """Return whether a body with these headers is compressed."""
    return header_of(headers, b"content-encoding").strip().lower() not in (b"", b"identity")


def expects_body(call: Call) -> bool:
    """Return whether the call has a body, or should have one."""
    return call.protocol is not Protocol.WEBSOCKET and (call.method in METHODS_WITH_BODY or has_body(call.headers))


def require_plain(call: Call) -> None:
    """Raise Refused (415) for a compressed body: reading it would mean inflating it."""
    if is_encoded(call.headers):
        raise Refused(
            Reason.INVALID_REQUEST,
            "Compressed request bodies are not accepted here; send the body without a Content-Encoding.",
            status=415,
            cause="content-encoding",
            headers=((b"accept-encoding", b"identity"),),
        )


def require_json_type(call: Call) -> None:
    """Raise Refused (415) for a body whose content type is not JSON."""
    if not is_json(call.headers, default=True):
        raise Refused(
            Reason.INVALID_REQUEST,
            "Send the body as application/json.",
            status=415,
            cause="content-type",
            headers=((b"accept", b"application/json"),),
        )


def read_body(body: bytes, *, depth_max: int, digits_max: int) -> Any:
    """Parse a request's body. Raises Refused ``invalid-payload`` (400) where it is not JSON within these bounds."""
    try:
        return parse(body, depth_max=depth_max, digits_max=digits_max)
    except Refused as refused:
        raise Refused(refused.reason, refused.detail, status=400, members=refused.members) from None


def replace_body(call: Call, body: bytes) -> None:
    """Replace the call's body, and the headers that describe it."""
    call.headers = [header for header in call.headers if header[0] not in BODY_HEADERS]
    call.headers.append((b"content-length", str(len(body)).encode()))
    call.peer.replace_body(body)


def wants_json(headers: Headers) -> Wants:
    """Return ``WHOLE`` for an answer whose content type is JSON, else ``NOTHING``."""
    return Wants.WHOLE if is_json(headers, default=False) else Wants.NOTHING


def read_answer(headers: Headers, body: bytes | None) -> Any:
    """Parse the body of an answer whose content type is JSON. Raises Refused ``upstream-unavailable`` (502).

    An answer with more values than one text may have cannot be parsed either.
    """
    if is_encoded(headers):
        raise invalid_answer("The upstream compressed its answer, so the policies of this route cannot read it.")
    try:
        return parse(body or b"")
    except Refused:
        raise invalid_answer("The upstream's answer is declared as JSON but cannot be parsed as JSON.") from None


def invalid_answer(detail: str, **more: Any) -> Refused:
    """Return the refusal of an answer, or a message, of the upstream that violates the route's policies."""
    return Refused(Reason.UPSTREAM_UNAVAILABLE, detail, cause="answer-invalid", **more)
