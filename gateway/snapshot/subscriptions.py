"""Durable subscriptions as values: what a consumer reads, how it is delivered, and whether it may be just now."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.call import Principal, Right, Verb
from gateway.identity.rights import allowed
from gateway.wire.subjects import Template, filters_of, matches

if TYPE_CHECKING:
    from gateway.snapshot.documents import Channel
    from gateway.snapshot.picture import Snapshot

ID_PREFIX = "sub_"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin
WINDOW = 1000
"""Events of a webhook in the order of its keys that may be sent or wait for their next try."""
RETRY_SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Pauses before each try, unless the subscription has its own."""


class Type(StrEnum):
    """How events reach the consumer."""

    WEBHOOK = "webhook"
    PULL = "pull"


class Order(StrEnum):
    """Within what events keep their order: an event waits until the one before it is delivered or given up."""

    CHANNEL = "channel"
    KEY = "key"


class State(StrEnum):
    """Whether it delivers."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Why(StrEnum):
    """Why it does not deliver, or only probes."""

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
    """One durable reader of a channel, as the snapshot has it."""

    id: str
    consumer: str
    key: str
    """The key whose rights it delivers by; empty where an operator made it, whose word is enough."""
    type: str
    channel: str
    """As it was named: a concrete address, a channel's template, or one with ``+`` for a level."""
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


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a subscription may deliver now."""

    state: State
    reason: str = ""

    @property
    def may_deliver(self) -> bool:
        """It delivers, or tries whether its endpoint is back."""
        return self.state is State.ACTIVE or self.reason == Why.FAILING


def read(document: Mapping[str, Any]) -> Subscription:
    """Read a document of the snapshot. Raises KeyError, TypeError and ValueError."""
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
    """Say how many of its events may be out at once; more than are sent at once where some wait for their next try."""
    if subscription.type == Type.PULL or subscription.order == Order.CHANNEL:
        return subscription.max_in_flight
    return max(WINDOW, subscription.max_in_flight)


def ack_wait_s(subscription: Subscription, webhook_timeout_s: float) -> float:
    """Say after how long what is out and not settled is given again."""
    return subscription.ack_wait_s if subscription.type == Type.PULL else webhook_timeout_s * 4 / 3


def subject_filter(channel: str) -> str:
    """Give the subject filter of what a subscription names as its channel. Raises AddressError."""
    if "{" in channel:
        return Template.parse(channel).subject
    return filters_of(channel)[0]


def channel_of(snapshot: Snapshot, subscription: Subscription) -> Channel | None:
    """Give the channel that it reads; None where there is none (any more)."""
    wanted = subject_filter(subscription.channel)
    return next((channel for channel in snapshot.channels() if matches(channel.subject, wanted)), None)


def standing(snapshot: Snapshot, subscription: Subscription, now: float) -> Standing:
    """Say whether a subscription may deliver now: by what was asked of it, its key's rights and its channel."""
    if subscription.state != State.ACTIVE:
        said = Standing(State(subscription.state), subscription.state_reason)
        if not said.may_deliver:
            return said
    else:
        said = Standing(State.ACTIVE)
    why = _obstacle(snapshot, subscription, now)
    return said if why is None else Standing(State.PAUSED, why)


def _obstacle(snapshot: Snapshot, subscription: Subscription, now: float) -> Why | None:
    if snapshot.standing(subscription.consumer) is None:
        return Why.CONSUMER_DISABLED
    if subscription.key and subscription.type == Type.WEBHOOK:  # who pulls proves itself each time
        key = snapshot.key(subscription.key)
        if key is None or key.revoked_at is not None or key.consumer != subscription.consumer:
            return Why.KEY_REVOKED
        if key.expires_at is not None and key.expires_at <= now:
            return Why.KEY_EXPIRED
        principal = snapshot.principal(key.id)
        if principal is None or not allowed(principal, subscription.right):
            return Why.FORBIDDEN
    return None if channel_of(snapshot, subscription) is not None else Why.NO_CHANNEL


def principal_of(snapshot: Snapshot, subscription: Subscription) -> Principal:
    """Give whose budget deliveries are charged to."""
    known = snapshot.principal(subscription.key) if subscription.key else None
    if known is not None:
        return known
    stands = snapshot.standing(subscription.consumer)
    if stands is None:
        return Principal(subscription.consumer, "", "")
    return Principal(subscription.consumer, "", stands.tier.name, limits=stands.limits)


def secret(secret_key: bytes, subscription_id: str, generation: int) -> str:
    """Make the signing secret of a subscription, always the same one: it is kept nowhere, and shown once.

    It changes with its generation (rotation), and with the server's ``SECRET_KEY``.
    """
    named = f"webhook secret\0{subscription_id}\0{generation}".encode()
    return SECRET_PREFIX + base64.b64encode(hmac.digest(secret_key, named, "sha256")).decode()


def secrets_now(secret_key: bytes, subscription: Subscription, now: float) -> tuple[str, ...]:
    """Give the secrets that a message is signed with now: the newest first, and the one before while both are good."""
    found = [secret(secret_key, subscription.id, subscription.secret_generation)]
    if subscription.previous_secret_until is not None and now < subscription.previous_secret_until:
        found.append(secret(secret_key, subscription.id, subscription.secret_generation - 1))
    return tuple(found)
