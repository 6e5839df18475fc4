"""A webhook as arithmetic: how a message is signed (Standard Webhooks), what an answer means, when to try again."""

from __future__ import annotations

import base64
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import urlsplit

from gateway import tracing
from gateway.snapshot.subscriptions import SECRET_PREFIX
from gateway.upstream.connection import Origin

JITTER = 0.2
"""A pause is as long as the schedule says, and up to this share longer."""
RETRY_AFTER_MAX_S = 24 * 3600.0
USER_AGENT = "apimgmt-webhooks"


class Verdict(StrEnum):
    """What an answer means."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"
    """The endpoint wants no more: the subscription ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver has answered, as far as it was read."""

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
    """Give the headers of a message: signed by each secret, so that a receiver that knows one of them can verify it."""
    timestamp = str(int(at))
    found = {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(secret, message_id, timestamp, body) for secret in secrets),
    }
    if traceparent and tracing.taken(traceparent):
        found["traceparent"] = traceparent
        if state := tracing.state(tracestate):
            found["tracestate"] = state
    return found


def request(url: str, headers_: Mapping[str, str], body: bytes) -> bytes:
    """Write the whole request. The URL was checked when it was registered: printable ASCII, no user, no fragment."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", f"host: {_host(url)}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers_.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def verdict(answer: Answer) -> Verdict:
    """Say what an answer means: 2xx is delivered, 410 ends it, all else failed; a redirect is not followed."""
    if 200 <= answer.status < 300:
        return Verdict.DELIVERED
    return Verdict.GONE if answer.status == 410 else Verdict.FAILED


def pause_s(schedule: Sequence[float], tries: int, *, share: float | None = None) -> float:
    """Give the pause after so many tries: the schedule's (its last repeats), and a random share of the jitter more."""
    share = random.random() if share is None else share  # noqa: S311 - spreads load, guards nothing
    return schedule[min(tries, len(schedule) - 1)] * (1 + JITTER * share)


def retry_after_s(answer: Answer | None, now: float) -> float:
    """Give how long the receiver asks us to wait (``Retry-After``: seconds or a date), bounded; 0 where it does not."""
    text = answer.headers.get("retry-after", "").strip() if answer is not None else ""
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max((at - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0), RETRY_AFTER_MAX_S)


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def _host(url: str) -> str:
    """Write the host as a Host header has it, with its port where it is not the usual one."""
    origin = Origin.of(url)
    usual = 443 if origin.is_tls else 80
    return origin.authority.rpartition(":")[0] if origin.port == usual else origin.authority
