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
PROTOCOLS = {
    "http": "REST", "websocket": "WebSocket", "sse": "SSE", "mqtt": "MQTT", "amqp": "AMQP", "connector": "Connector",
}  # fmt: skip

CAUSES = {
    "answer-invalid": ("Upstream's answer invalid", Reason.UPSTREAM_UNAVAILABLE),
    "answer-too-large": ("Upstream's answer too large to be looked at", Reason.UPSTREAM_UNAVAILABLE),
    "auth-other-consumer": ("Key of another consumer", Reason.FORBIDDEN),
    "closed-door": ("Protocol not offered there", Reason.FORBIDDEN),
    "consumer-disabled": ("Consumer disabled", Reason.UNAUTHENTICATED),
    "content-encoding": ("Body compressed where a policy reads it", Reason.INVALID_REQUEST),
    "content-type": ("Body of another type than JSON", Reason.INVALID_REQUEST),
    "control-plane-away": ("Control plane away", Reason.OVERLOADED),
    "credential-malformed": ("Malformed credential", Reason.UNAUTHENTICATED),
    "credential-missing": ("No key sent", Reason.UNAUTHENTICATED),
    "credential-twice": ("Two credentials sent", Reason.INVALID_REQUEST),
    "event-over-maximum-packet-size": ("Event larger than the client takes", Reason.TOO_LARGE),
    "failed-keys": ("Too many failed keys", Reason.RATE_LIMITED),
    "function-nonsense": ("Operator's function gave nonsense", Reason.INTERNAL),
    "function-raised": ("Operator's function failed", Reason.INTERNAL),
    "function-resting": ("Operator's function not called for a while", Reason.INTERNAL),
    "function-timeout": ("Operator's function too slow", Reason.INTERNAL),
    "idempotency-conflict": ("Idempotency key used for another body", Reason.INVALID_PAYLOAD),
    "idempotency-key-reused": ("Idempotency key used for another body", Reason.INVALID_PAYLOAD),
    "inner-address": ("Webhook to an inner address", Reason.FORBIDDEN),
    "invalid-address": ("Invalid channel address", Reason.INVALID_REQUEST),
    "invalid-frame": ("Invalid frame", Reason.INVALID_REQUEST),
    "invalid-interval": ("Invalid interval", Reason.INVALID_REQUEST),
    "invalid-position": ("Invalid position", Reason.INVALID_REQUEST),
    "key-expired": ("Expired key", Reason.UNAUTHENTICATED),
    "key-in-query": ("Key in the query", Reason.UNAUTHENTICATED),
    "origin-foreign": ("Cookie from a foreign page", Reason.ORIGIN_NOT_ALLOWED),
    "key-malformed": ("Malformed key", Reason.UNAUTHENTICATED),
    "key-unknown": ("Unknown key", Reason.UNAUTHENTICATED),
    "log-away": ("Event log away", Reason.OVERLOADED),
    "malformed-request": ("Malformed request", Reason.INVALID_REQUEST),
    "malformed-packet": ("Malformed packet", Reason.INVALID_REQUEST),
    "not-offered": ("MQTT feature not offered", Reason.INVALID_REQUEST),
    "operator-closed": ("Disconnected by an operator", Reason.KEY_REVOKED),
    "path-malformed": ("Malformed path", Reason.INVALID_REQUEST),
    "policy-unusable": ("Policy cannot be used", Reason.INTERNAL),
    "schema-unusable": ("Schema cannot be used", Reason.INTERNAL),
    "route-deleted": ("Route deleted", Reason.NOT_FOUND),
    "subscription-paused": ("Paused subscription", Reason.FORBIDDEN),
    "ticket-unknown": ("Unknown ticket", Reason.UNAUTHENTICATED),
    "token-algorithm": ("Token algorithm not allowed", Reason.UNAUTHENTICATED),
    "token-audience": ("Token for another audience", Reason.UNAUTHENTICATED),
    "token-bound": ("Token bound to a key", Reason.UNAUTHENTICATED),
    "token-claim-refused": ("Token without a claim that is asked for", Reason.FORBIDDEN),
    "token-consumer-unknown": ("Token of an unknown consumer", Reason.UNAUTHENTICATED),
    "token-for-durable": ("Token where a key is needed", Reason.FORBIDDEN),
    "token-issuer-refused": ("Token of an issuer that the route does not take", Reason.FORBIDDEN),
    "token-issuer-unknown": ("Unknown token issuer", Reason.UNAUTHENTICATED),
    "token-key-unknown": ("Token signed with an unknown key", Reason.UNAUTHENTICATED),
    "token-keys-away": ("Keys of a token issuer away", Reason.OVERLOADED),
    "token-malformed": ("Malformed token", Reason.UNAUTHENTICATED),
    "token-needed": ("Key where a token is needed", Reason.UNAUTHENTICATED),
    "token-signature": ("Wrong token signature", Reason.UNAUTHENTICATED),
    "token-too-early": ("Token not valid yet", Reason.UNAUTHENTICATED),
    "too-many-subscriptions": ("Too many subscriptions", Reason.QUOTA_EXCEEDED),
    "unknown-channel": ("Unknown channel", Reason.NOT_FOUND),
    "upstream-connect-timeout": ("Upstream did not take the connection", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-error": ("Upstream answered 5xx", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-lost": ("Upstream lost", Reason.UPSTREAM_UNAVAILABLE),
    "upstream-unreachable": ("Upstream unreachable", Reason.UPSTREAM_UNAVAILABLE),
}
"""What the closed labels that are no reasons themselves say, and the reason that strangers are told."""

OUTCOMES: dict[str, tuple[str, str]] = {reason.value: (TABLE[reason].title, reason.value) for reason in Reason} | {
    cause: (words, reason.value) for cause, (words, reason) in CAUSES.items()
}
"""Each outcome's words, and where the page of refusals explains it."""


def of_outcome(outcome: str) -> str:
    """Say an outcome; one that is not known stays as it is."""
    return OUTCOMES[outcome][0] if outcome in OUTCOMES else outcome


def of_end(error_class: str) -> str:
    """Say how a connection ended."""
    return ERROR_CLASSES.get(error_class, error_class)
