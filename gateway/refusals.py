"""Every reason for a refusal and its code in each protocol. No other module sets a status or a close code.

Sources: RFC 9110 and RFC 9457 (HTTP), RFC 6455 7.4 and the IANA close code registry (WebSocket), MQTT 3.1.1
3.2.2.3 and MQTT 5.0 table 2-6, AMQP 0-9-1's extended XML.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""The gateway's own answers are data: no browser runs, loads or frames anything of them."""
"""Part of every answer of the gateway's own: a browser takes it for nothing but its content type."""
CLOSE_REASON_MAX_BYTES = 123
"""A close frame's payload is at most 125 bytes, two of them the code (RFC 6455 5.5)."""


class Reason(StrEnum):
    """Why the gateway refuses a call. The value is the slug that callers see."""

    UNAUTHENTICATED = "unauthenticated"
    KEY_REVOKED = "key-revoked"
    TOKEN_EXPIRED = "token-expired"
    FORBIDDEN = "forbidden"
    ORIGIN_NOT_ALLOWED = "origin-not-allowed"
    IP_NOT_ALLOWED = "ip-not-allowed"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    METHOD_NOT_IMPLEMENTED = "method-not-implemented"
    NOT_CONFIGURED = "not-configured"
    UPGRADE_REQUIRED = "upgrade-required"
    RATE_LIMITED = "rate-limited"
    QUOTA_EXCEEDED = "quota-exceeded"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TOO_LARGE = "too-large"
    PATH_TOO_LONG = "path-too-long"
    HEAD_TOO_LARGE = "head-too-large"
    INVALID_REQUEST = "invalid-request"
    INVALID_PAYLOAD = "invalid-payload"
    IN_FLIGHT = "in-flight"
    GONE = "gone"
    TAKEN_OVER = "taken-over"
    TOO_SLOW = "too-slow"
    IDLE = "idle"
    OVERLOADED = "overloaded"
    STORAGE_FULL = "storage-full"
    DRAINING = "draining"
    UPSTREAM_UNAVAILABLE = "upstream-unavailable"
    UPSTREAM_TIMEOUT = "upstream-timeout"
    LOOP_DETECTED = "loop-detected"
    INTERNAL = "internal"


class ErrorClass(StrEnum):
    """How a connection or call failed, for the usage ledger and the dashboards: a closed list."""

    HANDSHAKE_AUTH = "handshake_auth"
    HANDSHAKE_LIMIT = "handshake_limit"
    HANDSHAKE_UPSTREAM = "handshake_upstream"
    CLIENT_GONE = "client_gone"
    IDLE = "idle"
    POLICY_LIMIT = "policy_limit"
    REVOKED = "revoked"
    EXPIRED = "expired"
    DRAINED = "drained"
    UPSTREAM_LOST = "upstream_lost"
    TOO_SLOW = "too_slow"
    PROTOCOL_ERROR = "protocol_error"
    INTERNAL = "internal"


class Packet(StrEnum):
    """MQTT 5 packets in which a server sends a reason code."""

    CONNACK = "C"
    PUBACK = "A"
    """PUBACK and PUBREC, which share one set of codes."""
    SUBACK = "S"
    DISCONNECT = "D"


MQTT5_ALLOWED: dict[int, str] = {
    0x80: "CASD", 0x81: "CD", 0x82: "CD", 0x83: "CASD", 0x84: "C", 0x85: "C", 0x86: "C", 0x87: "CASD", 0x88: "C", 0x89: "CD",
    0x8A: "C", 0x8B: "D", 0x8C: "CD", 0x8D: "D", 0x8E: "D", 0x8F: "SD", 0x90: "CAD", 0x93: "D", 0x94: "D", 0x95: "CD",
    0x96: "D", 0x97: "CASD", 0x98: "D", 0x99: "CAD", 0x9A: "CD", 0x9B: "CD", 0x9C: "CD", 0x9D: "CD", 0x9E: "SD",
    0x9F: "CD", 0xA0: "D", 0xA1: "SD", 0xA2: "SD",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One reason with its code in each protocol; 0 or an empty mapping if a protocol has none for it."""

    title: str
    http: int
    websocket: int
    mqtt5: dict[Packet, int]
    connack: int
    """MQTT 3.1.1 CONNACK return code; an open connection is just closed, as 3.1.1 has no packet for it."""
    amqp: int
    live: ErrorClass
    """Error class of an open connection that is closed for this reason."""
    retry: str
    """Whether retrying can succeed: ``no``, ``yes`` or ``after retry_after_s``."""
    advice: str
    """What the caller can do, in one sentence."""

    def __post_init__(self) -> None:
        for packet, code in self.mqtt5.items():
            if packet.value not in MQTT5_ALLOWED[code]:
                raise ValueError(f"MQTT 5 {packet.name} may not carry reason code {code:#x}")

    @property
    def handshake(self) -> ErrorClass:
        """Error class of a call that is refused for this reason before it is accepted."""
        return _AT_HANDSHAKE.get(self.live, self.live)


_AT_HANDSHAKE = {
    ErrorClass.REVOKED: ErrorClass.HANDSHAKE_AUTH,
    ErrorClass.EXPIRED: ErrorClass.HANDSHAKE_AUTH,
    ErrorClass.POLICY_LIMIT: ErrorClass.HANDSHAKE_LIMIT,
    ErrorClass.UPSTREAM_LOST: ErrorClass.HANDSHAKE_UPSTREAM,
}

C, A, S, D = Packet.CONNACK, Packet.PUBACK, Packet.SUBACK, Packet.DISCONNECT
NO, YES, LATER = "no", "yes", "after retry_after_s"
_AUTH = {C: 0x86, A: 0x87, S: 0x87, D: 0x98}
_FORBIDDEN = {C: 0x87, A: 0x87, S: 0x87, D: 0x87}
_LIMITED = {C: 0x97, A: 0x97, S: 0x97, D: 0x97}
_BUSY = {C: 0x89, A: 0x80, S: 0x80, D: 0x89}
_FAULT = {C: 0x80, A: 0x80, S: 0x80, D: 0x80}

TABLE: dict[Reason, Row] = {
    Reason.UNAUTHENTICATED: Row("No valid credential", 401, 3000, _AUTH, 5, 403, ErrorClass.REVOKED, NO,
        "Send a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."),
    Reason.KEY_REVOKED: Row("Key revoked", 401, 3000, _AUTH, 5, 320, ErrorClass.REVOKED, NO,
        "This key was revoked. Request a new one."),
    Reason.TOKEN_EXPIRED: Row("Credential expired", 401, 3000, {**_AUTH, D: 0xA0}, 5, 320, ErrorClass.EXPIRED, NO,
        "Get a new token or key, then connect again."),
    Reason.FORBIDDEN: Row("Not allowed", 403, 3003, _FORBIDDEN, 5, 403, ErrorClass.REVOKED, NO,
        "This key does not have the right that the call needs. Use a key whose scopes include it."),
    Reason.ORIGIN_NOT_ALLOWED: Row("Origin not allowed", 403, 3003, _FORBIDDEN, 5, 530, ErrorClass.REVOKED, NO,
        "Ask the owner of the key to add this origin to its allowed origins."),
    Reason.IP_NOT_ALLOWED: Row("IP address not allowed", 403, 3003, {**_FORBIDDEN, C: 0x8A}, 5, 530, ErrorClass.REVOKED, NO,
        "Call from an IP address that the key and the route allow."),
    Reason.NOT_FOUND: Row("Not found", 404, 3003, {C: 0x90, A: 0x90, S: 0x8F, D: 0x90}, 5, 404, ErrorClass.PROTOCOL_ERROR, NO,
        "Check the path, the channel address or the id."),
    Reason.METHOD_NOT_ALLOWED: Row("Method not allowed", 405, 3003, {}, 5, 540, ErrorClass.PROTOCOL_ERROR, NO,
        "Use one of the methods in the `Allow` header."),
    Reason.METHOD_NOT_IMPLEMENTED: Row("Method not implemented", 501, 3003, {}, 5, 540, ErrorClass.PROTOCOL_ERROR, NO,
        "Use another method: the gateway does not implement this one on any path."),
    Reason.NOT_CONFIGURED: Row("Not configured", 501, 1011, _FAULT, 3, 541, ErrorClass.INTERNAL, NO,
        "A part of this route is a placeholder of an import. The operator must replace it."),
    Reason.UPGRADE_REQUIRED: Row("WebSocket upgrade required", 426, 3003, {}, 5, 540, ErrorClass.PROTOCOL_ERROR, NO,
        "Open this URL with a WebSocket client."),
    Reason.RATE_LIMITED: Row("Rate limited", 429, 4429, {**_LIMITED, C: 0x9F, D: 0x96}, 3, 506, ErrorClass.POLICY_LIMIT, LATER,
        "Wait for `retry_after_s` seconds, or request a higher tier."),
    Reason.QUOTA_EXCEEDED: Row("Quota exceeded", 429, 4429, _LIMITED, 3, 506, ErrorClass.POLICY_LIMIT, LATER,
        "The quota of this period is used up. Wait for the next period, or request a higher tier."),
    Reason.TOO_MANY_CONNECTIONS: Row("Too many connections", 429, 4429, _LIMITED, 3, 530, ErrorClass.POLICY_LIMIT, LATER,
        "Close a connection that you do not need, or request a higher tier."),
    Reason.TOO_LARGE: Row("Too large", 413, 1009, {C: 0x95, A: 0x97, S: 0x97, D: 0x95}, 5, 311, ErrorClass.PROTOCOL_ERROR, NO,
        "Send a smaller message or body."),
    Reason.PATH_TOO_LONG: Row("Path too long", 414, 1009, {}, 5, 311, ErrorClass.PROTOCOL_ERROR, NO,
        "Send a path of at most 8 KiB."),
    Reason.HEAD_TOO_LARGE: Row("Request head too large", 431, 1009, {}, 5, 311, ErrorClass.PROTOCOL_ERROR, NO,
        "Send at most 100 headers of at most 32 KiB in total."),
    Reason.INVALID_REQUEST: Row("Malformed request", 400, 1008, {C: 0x81, A: 0x83, S: 0x83, D: 0x81}, 5, 502,
        ErrorClass.PROTOCOL_ERROR, NO, "Correct the request as `detail` describes."),
    Reason.INVALID_PAYLOAD: Row("Invalid payload", 422, 1008, {C: 0x99, A: 0x83, S: 0x83, D: 0x99}, 5, 406,
        ErrorClass.PROTOCOL_ERROR, NO, "Correct the payload at `pointer` as `detail` describes."),
    Reason.IN_FLIGHT: Row("The same request is in progress", 409, 1013, {}, 3, 320, ErrorClass.PROTOCOL_ERROR, LATER,
        "Wait until the first request with this idempotency key has finished, then send it again."),
    Reason.GONE: Row("No longer available", 410, 3003, {}, 5, 404, ErrorClass.PROTOCOL_ERROR, NO,
        "Resume from the oldest id that `detail` names."),
    Reason.TAKEN_OVER: Row("Taken over by a newer connection", 409, 4409, {D: 0x8E}, 3, 320, ErrorClass.CLIENT_GONE, NO,
        "A newer connection uses the same ticket. Create a ticket for each stream."),
    Reason.TOO_SLOW: Row("Reader too slow", 503, 4408, {D: 0x97}, 3, 320, ErrorClass.TOO_SLOW, YES,
        "Read faster or subscribe to fewer channels, and resume from the last id received."),
    Reason.IDLE: Row("Timed out waiting for the client", 408, 3008, {D: 0x8D}, 3, 320, ErrorClass.IDLE, YES,
        "Send the request within the deadline, and answer pings."),
    Reason.OVERLOADED: Row("Temporarily unavailable", 503, 1013, _BUSY, 3, 320, ErrorClass.INTERNAL, YES,
        "Try again after `retry_after_s` seconds."),
    Reason.STORAGE_FULL: Row("Storage full", 507, 1013, _BUSY, 3, 320, ErrorClass.INTERNAL, YES,
        "The operator must free disk space. Reading still works."),
    Reason.DRAINING: Row("Restarting", 503, 1012, {C: 0x88, A: 0x80, S: 0x80, D: 0x8B}, 3, 320, ErrorClass.DRAINED, YES,
        "Connect again: another process accepts the connection."),
    Reason.UPSTREAM_UNAVAILABLE: Row("Upstream unavailable", 502, 1014, {**_BUSY, C: 0x88}, 3, 541, ErrorClass.UPSTREAM_LOST, YES,
        "The service behind this route does not answer. Try again later."),
    Reason.UPSTREAM_TIMEOUT: Row("Upstream too slow", 504, 1014, {**_BUSY, C: 0x88}, 3, 541, ErrorClass.UPSTREAM_LOST, YES,
        "The service behind this route did not answer in time. Try again later."),
    Reason.LOOP_DETECTED: Row("Loop detected", 508, 1014, {}, 3, 541, ErrorClass.UPSTREAM_LOST, NO,
        "The service behind this route sends its calls back to this gateway, as the header `Via` shows. Inform the operator."),
    Reason.INTERNAL: Row("Internal error", 500, 1011, _FAULT, 3, 541, ErrorClass.INTERNAL, YES,
        "The gateway failed and logged the error. Try again; if it fails again, inform the operator."),
}  # fmt: skip

SENT_BEFORE_CLOSE = frozenset({Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED, Reason.TOO_MANY_CONNECTIONS})
"""Reasons sent to a WebSocket in an error frame first, as their details do not fit into the close frame."""


class Refused(Exception):
    """The gateway refuses a call. Raised anywhere on its path, rendered by the protocol that accepted it."""

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        cause: str = "",
        status: int = 0,
        policies: tuple[str, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
        members: dict[str, Any] | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail or TABLE[reason].advice
        self.retry_after_s = retry_after_s
        self.cause = cause or reason.value
        """A label from a closed list for the log and the analytics; may reveal more than the caller sees."""
        self.status = status or TABLE[reason].http
        self.policies = policies
        """Names of the limits violated, for ``violated-policies``."""
        self.headers = headers
        self.members = members or {}
        """Further members of the problem details and error frames, such as ``pointer``."""
        self.fatal = fatal
        """Whether a connection that raises it ends, instead of refusing only the message."""

    def bare(self) -> Refused:
        """Drop the traceback and return self: a stored refusal must not keep the frames of its call alive."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self

    @property
    def row(self) -> Row:
        """The row of its reason in :data:`TABLE`."""
        return TABLE[self.reason]

    def problem(self) -> dict[str, Any]:
        """Return it as problem details (RFC 9457 section 3)."""
        problem: dict[str, Any] = {
            "type": f"/docs/refusals#{self.reason.value}",
            "title": self.row.title,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason.value,
        }
        if self.retry_after_s is not None:
            problem["retry_after_s"] = _rounded(self.retry_after_s)
        if self.policies:
            problem["violated-policies"] = list(self.policies)
        return problem | self.members

    def frame(self, ref: str | None = None) -> dict[str, Any]:
        """Return it as an ``error`` frame of ``/v1/stream``; ``ref`` is that of the refused message."""
        frame: dict[str, Any] = {"type": "error", "reason": self.reason.value, "detail": self.detail}
        if self.retry_after_s is not None:
            frame["retry_after_s"] = _rounded(self.retry_after_s)
        if self.policies:
            frame["violated-policies"] = list(self.policies)
        if ref is not None:
            frame["ref"] = ref
        return frame | self.members

    def close_reason(self) -> str:
        """Return it as the reason of a close frame: compact JSON that always fits."""
        reason: dict[str, Any] = {"reason": self.reason.value}
        if self.retry_after_s is not None:
            reason["retry_after_s"] = _rounded(self.retry_after_s)
        return cut(orjson.dumps(reason).decode())

    def http_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of an HTTP response that carries it, required by its status included."""
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            NOSNIFF,
            NO_PAGE,
            *self.headers,
        ]
        if self.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="apimgmt"'))
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(max(1, -int(-self.retry_after_s // 1))).encode()))
        return headers


def cut(text: str, most_bytes: int = CLOSE_REASON_MAX_BYTES) -> str:
    """Cut a text to ``most_bytes`` of UTF-8, never inside a character."""
    return text.encode()[:most_bytes].decode(errors="ignore")


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 3)
