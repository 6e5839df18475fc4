"""Whether a durable subscription may deliver now, on whose limits, and how it signs."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from gateway.identity.rights import allowed
from gateway.snapshot.documents import Channel
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.snapshot.subscriptions import SECRET_PREFIX, State, Subscription, Type, Why
from gateway.wire.subjects import Template, filters_of, matches


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a subscription may deliver now."""

    state: State
    reason: str = ""

    @property
    def may_deliver(self) -> bool:
        """It delivers, or tries whether its endpoint is back."""
        return self.state is State.ACTIVE or self.reason == Why.FAILING


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
