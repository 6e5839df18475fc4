"""Webhooks without I/O: signing (Standard Webhooks), the meaning of a response, and the pause before a retry."""

from __future__ import annotations

import base64
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from gateway.snapshot.subscriptions import SECRET_PREFIX
from gateway.wire.traceparent import parse_traceparent, parse_tracestate

JITTER = 0.2
"""The largest share by which a pause is longer than the schedule."""
RETRY_AFTER_MAX_S = 24 * 3600.0
USER_AGENT = "apimgmt-webhooks"


class Verdict(StrEnum):
    """The meaning of a response."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"
    """The endpoint no longer exists: the subscription ends."""


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The response of a receiver; its body may be cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def headers(
    message_id: str,
    body: bytes,
    secrets: Sequence[str],
    at: float,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> dict[str, str]:
    """Return the headers of a message. It is signed with each secret, so one of them is enough to verify it."""
    timestamp = str(int(at))
    signed = {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(secret, message_id, timestamp, body) for secret in secrets),
    }
    if traceparent and parse_traceparent(traceparent):
        signed["traceparent"] = traceparent
        if state := parse_tracestate(tracestate):
            signed["tracestate"] = state
    return signed


def verdict(response: WebhookResponse) -> Verdict:
    """Return the meaning of a response: 2xx is delivered, 410 is gone, anything else, redirects included, failed."""
    if 200 <= response.status < 300:
        return Verdict.DELIVERED
    return Verdict.GONE if response.status == 410 else Verdict.FAILED


def pause_s(schedule: Sequence[float], tries: int, *, share: float | None = None) -> float:
    """Return the pause after ``tries`` attempts: the schedule's (its last entry repeats) plus a random jitter."""
    share = random.random() if share is None else share  # noqa: S311 - spreads load, protects nothing
    return schedule[min(tries, len(schedule) - 1)] * (1 + JITTER * share)


def retry_after_s(response: WebhookResponse | None, now: float) -> float:
    """Return the seconds that ``Retry-After`` (seconds or a date, RFC 9110 10.2.3) asks to wait, bounded; else 0."""
    text = response.headers.get("retry-after", "").strip() if response is not None else ""
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max((at - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0), RETRY_AFTER_MAX_S)


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
