"""JSON in bodies and messages, as the policies read it: what counts as JSON, and what is said of what does not."""

from __future__ import annotations

from typing import Any

from gateway.call import Call
from gateway.policies.policy import Wants
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers, has_body
from gateway.wire.strict_json import parse

NEEDS_BODY = frozenset({"POST", "PUT", "PATCH"})
OF_THE_BODY = frozenset({b"content-length", b"transfer-encoding", b"content-md5", b"digest", b"content-digest"})


def header_of(headers: Headers, name: bytes) -> bytes:
    """Give the first header of that name, empty where there is none."""
    return next((value for key, value in headers if key == name), b"")


def is_json(headers: Headers, *, unsaid: bool) -> bool:
    """Say whether a body with these headers is said to be JSON; ``unsaid`` is what no content type means."""
    essence = header_of(headers, b"content-type").partition(b";")[0].strip().lower()
    return unsaid if not essence else essence == b"application/json" or essence.endswith(b"+json")


def is_encoded(headers: Headers) -> bool:
    """Say whether a body with these headers is compressed."""
    return header_of(headers, b"content-encoding").strip().lower() not in (b"", b"identity")


def expects_body(call: Call) -> bool:
    """Say whether the call has a body, or should have one."""
    return call.protocol is not Protocol.WEBSOCKET and (call.method in NEEDS_BODY or has_body(call.headers))


def require_plain(call: Call) -> None:
    """Raise Refused (415) for a compressed body: it would have to be inflated to be read."""
    if is_encoded(call.headers):
        raise Refused(
            Reason.INVALID_REQUEST,
            "Send the body without a content encoding: it is read here, and never inflated.",
            status=415,
            cause="content-encoding",
            headers=((b"accept-encoding", b"identity"),),
        )


def require_json_type(call: Call) -> None:
    """Raise Refused (415) for a body that is said to be no JSON."""
    if not is_json(call.headers, unsaid=True):
        raise Refused(
            Reason.INVALID_REQUEST,
            "Send the body as application/json.",
            status=415,
            cause="content-type",
            headers=((b"accept", b"application/json"),),
        )


def read_body(body: bytes, *, depth_max: int, digits_max: int) -> Any:
    """Read a request's body. Raises Refused ``invalid-payload`` (400) for what is not JSON within the bounds."""
    try:
        return parse(body, depth_max=depth_max, digits_max=digits_max)
    except Refused as refused:
        raise Refused(refused.reason, refused.detail, status=400, members=refused.members) from None


def replace_body(call: Call, body: bytes) -> None:
    """Give the call another body, with a head that fits it."""
    call.headers = [header for header in call.headers if header[0] not in OF_THE_BODY]
    call.headers.append((b"content-length", str(len(body)).encode()))
    call.peer.replace_body(body)


def wants_json(headers: Headers) -> Wants:
    """Say that an answer has to be seen whole where it is JSON."""
    return Wants.WHOLE if is_json(headers, unsaid=False) else Wants.NOTHING


def read_answer(headers: Headers, body: bytes | None) -> Any:
    """Read the body of an answer that is said to be JSON. Raises Refused ``upstream-unavailable`` (502)."""
    if is_encoded(headers):
        raise bad_answer("The upstream compressed its answer, so the policies of this route cannot read it.")
    try:
        return parse(body or b"")
    except Refused:
        raise bad_answer("The upstream's answer says that it is JSON, and is none.") from None


def bad_answer(detail: str, **more: Any) -> Refused:
    """Say that an answer, or a message, of the upstream is not what the route promises."""
    return Refused(Reason.UPSTREAM_UNAVAILABLE, detail, cause="answer-invalid", **more)
