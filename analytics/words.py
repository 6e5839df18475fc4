"""What codes and labels mean, in words for people on call."""

from __future__ import annotations

from gateway.refusals import TABLE, Reason

ERROR_CLASSES = {
    "": "ended normally",
    "handshake_auth": "not let in: credential or right",
    "handshake_limit": "not let in: limit",
    "handshake_upstream": "not let in: upstream away",
    "client_gone": "the client vanished",
    "idle": "nothing heard in time",
    "policy_limit": "limit exceeded",
    "revoked": "key or right withdrawn",
    "expired": "credential expired",
    "drained": "asked to reconnect",
    "upstream_lost": "upstream lost",
    "too_slow": "read too slowly",
    "protocol_error": "broke the protocol",
    "internal": "fault of the gateway",
}
PROTOCOLS = {"http": "REST", "sse": "SSE", "websocket": "WebSocket", "mqtt": "MQTT", "amqp": "AMQP"}
OUTCOMES = {reason.value: TABLE[reason].title for reason in Reason} | {
    "key-unknown": "Unknown key",
    "key-malformed": "Malformed key",
    "key-revoked": "Revoked key",
    "key-expired": "Expired key",
    "credential-missing": "No key sent",
    "consumer-disabled": "Consumer disabled",
    "failed-keys": "Too many failed keys",
    "malformed-request": "Malformed request",
    "malformed-packet": "Malformed packet",
    "unknown-channel": "Unknown channel",
    "upstream-error": "Upstream answered 5xx",
    "upstream-unreachable": "Upstream unreachable",
    "upstream-lost": "Upstream lost",
}
