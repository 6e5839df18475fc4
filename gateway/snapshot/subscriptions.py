"""Durable subscriptions as values: their channel, the way of delivery, and their state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.snapshot.right import Right, Verb

if TYPE_CHECKING:
    pass

ID_PREFIX = "sub_"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin
WINDOW = 1000
"""The most events of a webhook in key order that are being sent or wait for their next attempt."""
RETRY_SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""The pause before each attempt, unless the subscription sets others."""


class Type(StrEnum):
    """How events reach the consumer."""

    WEBHOOK = "webhook"
    PULL = "pull"


class Order(StrEnum):
    """The scope of the order: within it, an event waits until the one before it is delivered or given up."""

    CHANNEL = "channel"
    KEY = "key"


class State(StrEnum):
    """Whether a subscription delivers."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Why(StrEnum):
    """Why a subscription does not deliver, or only probes."""

    REQUESTED = "requested"
    FAILING = "endpoint-failing"
    GONE = "endpoint-gone"
    KEY_REVOKED = "key-revoked"
    KEY_EXPIRED = "key-expired"
    CONSUMER_DISABLED = "consumer-disabled"
    FORBIDDEN = "forbidden"
    NO_CHANNEL = "channel-gone"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One durable subscription to a channel."""

    id: str
    consumer: str
    key: str
    """The key whose rights it needs; empty if an operator created it."""
    type: str
    channel: str
    """As requested: a concrete address, a channel's template, or one with ``+`` for a level."""
    url: str = ""
    order: str = Order.CHANNEL
    max_in_flight: int = 1
    max_attempts: int = len(RETRY_SCHEDULE_S)
    retry_schedule_s: tuple[float, ...] = RETRY_SCHEDULE_S
    ack_wait_s: float = 30
    position: int = 0
    """The id after which it begins."""
    state: str = State.ACTIVE
    state_reason: str = ""
    alert_url: str = ""
    alert_lag_events: int | None = None
    alert_lag_s: float | None = None
    secret_generation: int = 1
    previous_secret_until: float | None = None
    created_at: float = 0
    version: int = 1

    @property
    def right(self) -> Right:
        """The right that each delivery needs."""
        return Right(Verb.SUBSCRIBE, self.channel)


def read(document: Mapping[str, Any]) -> Subscription:
    """Parse a document of the snapshot. Raises KeyError, TypeError and ValueError."""
    return Subscription(
        id=document["id"],
        consumer=document["consumer"],
        key=document["key"],
        type=Type(document["type"]),
        channel=document["channel"],
        url=document["url"],
        order=Order(document["order"]),
        max_in_flight=int(document["max_in_flight"]),
        max_attempts=int(document["max_attempts"]),
        retry_schedule_s=tuple(map(float, document["retry_schedule_s"])),
        ack_wait_s=float(document["ack_wait_s"]),
        position=int(document["position"]),
        state=State(document["state"]),
        state_reason=document["state_reason"],
        alert_url=document["alert_url"],
        alert_lag_events=document["alert_lag_events"],
        alert_lag_s=document["alert_lag_s"],
        secret_generation=int(document["secret_generation"]),
        previous_secret_until=document["previous_secret_until"],
        created_at=float(document["created_at"]),
        version=int(document["version"]),
    )


def window(subscription: Subscription) -> int:
    """Return how many events may be unsettled at once: those being sent, and those that wait for their next attempt."""
    if subscription.type == Type.PULL or subscription.order == Order.CHANNEL:
        return subscription.max_in_flight
    return max(WINDOW, subscription.max_in_flight)


def ack_wait_s(subscription: Subscription, webhook_timeout_s: float) -> float:
    """Return after how many seconds an unsettled event is redelivered."""
    return subscription.ack_wait_s if subscription.type == Type.PULL else webhook_timeout_s * 4 / 3
