"""Display texts of codes and labels, for the dashboards."""

from __future__ import annotations

from gateway.refusals import TABLE, Reason

ERROR_CLASSES = {
    "": "ended normally",
    "handshake_auth": "rejected: credential or permission",
    "handshake_limit": "rejected: limit",
    "handshake_upstream": "rejected: upstream unavailable",
    "client_gone": "client disconnected abruptly",
    "idle": "idle timeout",
    "policy_limit": "limit exceeded",
    "revoked": "key or permission revoked",
    "expired": "credential expired",
    "drained": "drained: asked to reconnect",
    "upstream_lost": "upstream disconnected",
    "too_slow": "client read too slowly",
    "protocol_error": "protocol violation",
    "internal": "internal error of the gateway",
}
PROTOCOLS = {
    "http": "REST", "websocket": "WebSocket", "sse": "SSE", "mqtt": "MQTT", "amqp": "AMQP", "connector": "Connector",
}  # fmt: skip

CAUSES = {
    "answer-invalid": ("Invalid response of the upstream", Reason.UPSTREAM_UNAVAILABLE),
    "answer-too-large": ("Response of the upstream too large to inspect", Reason.UPSTREAM_UNAVAILABLE),
    "auth-other-consumer": ("Key of another consumer", Reason.FORBIDDEN),
    "bodies-of-consumer": ("Too many unfinished bodies of one consumer", Reason.RATE_LIMITED),
    "bodies-of-process": ("Too many unfinished bodies", Reason.OVERLOADED),
    "closed-door": ("Protocol not offered there", Reason.FORBIDDEN),
    "consumer-disabled": ("Consumer disabled", Reason.UNAUTHENTICATED),
    "content-encoding": ("Compressed body where a policy reads it", Reason.INVALID_REQUEST),
    "content-type": ("Body is not JSON", Reason.INVALID_REQUEST),
    "control-plane-away": ("Control plane unavailable", Reason.OVERLOADED),
    "credential-malformed": ("Malformed credential", Reason.UNAUTHENTICATED),
    "credential-missing": ("No key sent", Reason.UNAUTHENTICATED),
    "credential-twice": ("Two credentials sent", Reason.INVALID_REQUEST),
    "event-over-maximum-packet-size": ("Event larger than the client accepts", Reason.TOO_LARGE),
    "failed-keys": ("Too many failed keys", Reason.RATE_LIMITED),
    "function-nonsense": ("Hook returned an invalid result", Reason.INTERNAL),
    "function-raised": ("Hook raised an exception", Reason.INTERNAL),
    "function-resting": ("Hook suspended after failures", Reason.INTERNAL),
    "function-timeout": ("Hook timed out", Reason.INTERNAL),
    "idempotency-conflict": ("Idempotency key used for another body", Reason.INVALID_PAYLOAD),
    "idempotency-failed": ("First request of an idempotency key failed", Reason.UPSTREAM_UNAVAILABLE),
    "idempotency-not-kept": ("Response too large to repeat", Reason.GONE),
    "idempotency-key-reused": ("Idempotency key used for another body", Reason.INVALID_PAYLOAD),
    "inner-address": ("Webhook to an internal address", Reason.FORBIDDEN),
    "invalid-address": ("Invalid channel address", Reason.INVALID_REQUEST),
    "invalid-frame": ("Invalid frame", Reason.INVALID_REQUEST),
    "invalid-interval": ("Invalid interval", Reason.INVALID_REQUEST),
    "invalid-position": ("Invalid position", Reason.INVALID_REQUEST),
    "key-expired": ("Expired key", Reason.UNAUTHENTICATED),
    "key-in-query": ("Key in the query", Reason.UNAUTHENTICATED),
    "origin-foreign": ("Cookie from a foreign origin", Reason.ORIGIN_NOT_ALLOWED),
    "key-malformed": ("Malformed key", Reason.UNAUTHENTICATED),
    "key-unknown": ("Unknown key", Reason.UNAUTHENTICATED),
    "log-away": ("Event log unavailable", Reason.OVERLOADED),
    "malformed-request": ("Malformed request", Reason.INVALID_REQUEST),
    "malformed-packet": ("Malformed packet", Reason.INVALID_REQUEST),
    "not-offered": ("MQTT feature not supported", Reason.INVALID_REQUEST),
    "operator-closed": ("Disconnected by an operator", Reason.KEY_REVOKED),
    "parsing-queue": ("Too many large bodies to parse", Reason.OVERLOADED),
    "path-malformed": ("Malformed path", Reason.INVALID_REQUEST),
    "policy-unusable": ("Policy cannot be used", Reason.INTERNAL),
    "schema-unusable": ("Schema cannot be used", Reason.INTERNAL),
    "refused-calls": ("Too many refused calls", Reason.RATE_LIMITED),
    "route-deleted": ("Route deleted", Reason.NOT_FOUND),
    "subscription-paused": ("Paused subscription", Reason.FORBIDDEN),
    "ticket-as-page": ("Ticket in the URL of a page", Reason.FORBIDDEN),
    "ticket-misplaced": ("Ticket outside a WebSocket or event stream", Reason.UNAUTHENTICATED),
    "ticket-other-stream": ("Ticket of another stream", Reason.FORBIDDEN),
    "ticket-unknown": ("Unknown ticket", Reason.UNAUTHENTICATED),
    "token-algorithm": ("Token algorithm not allowed", Reason.UNAUTHENTICATED),
    "token-audience": ("Token has another audience", Reason.UNAUTHENTICATED),
    "token-bound": ("Token bound to a key", Reason.UNAUTHENTICATED),
    "token-claim-refused": ("Token lacks a required claim", Reason.FORBIDDEN),
    "token-consumer-unknown": ("Token of an unknown consumer", Reason.UNAUTHENTICATED),
    "token-for-durable": ("Token where a key is required", Reason.FORBIDDEN),
    "token-issuer-refused": ("Token of an issuer that the route does not accept", Reason.FORBIDDEN),
    "token-issuer-unknown": ("Unknown token issuer", Reason.UNAUTHENTICATED),
    "token-key-unknown": ("Token signed with an unknown key", Reason.UNAUTHENTICATED),
    "token-keys-away": ("Keys of a token issuer unavailable", Reason.OVERLOADED),
    "token-malformed": ("Malformed token", Reason.UNAUTHENTICATED),
    "token-needed": ("Key where a token is required", Reason.UNAUTHENTICATED),
    "token-signature": ("Invalid token signature", Reason.UNAUTHENTICATED),
    "token-too-early": ("Token not valid yet", Reason.UNAUTHENTICATED),
    "too-many-subscriptions": ("Too many subscriptions", Reason.QUOTA_EXCEEDED),
    "unknown-channel": ("Unknown channel", Reason.NOT_FOUND),
    "upstream-connect-timeout": ("Connecting to the upstream timed out", Reason.UPSTREAM_TIMEOUT),
    "upstream-credential": ("Credential of the upstream cannot be decrypted", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-error": ("Upstream answered 5xx", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-lost": ("Upstream disconnected", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-unreachable": ("Upstream unreachable", Reason.UPSTREAM_UNAVAILABLE),
}
"""Texts of the causes that are more specific than their reason, and the reason that callers see."""

OUTCOMES: dict[str, tuple[str, str]] = {reason.value: (TABLE[reason].title, reason.value) for reason in Reason} | {
    cause: (words, reason.value) for cause, (words, reason) in CAUSES.items()
}
"""The text of each outcome, and its anchor on the page of refusals."""


def outcome_text(outcome: str) -> str:
    """Return the text of an outcome; an unknown outcome is returned unchanged."""
    return OUTCOMES[outcome][0] if outcome in OUTCOMES else outcome


def end_text(error_class: str) -> str:
    """Return the text for how a connection ended."""
    return ERROR_CLASSES.get(error_class, error_class)
