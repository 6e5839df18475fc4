"""The standing of a durable subscription: whether it may deliver, which limits it is charged to, and its secrets."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from gateway.identity.rights import allowed
from gateway.snapshot.documents import Channel
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.snapshot.subscriptions import SECRET_PREFIX, State, Subscription, Type, Why
from gateway.wire.subjects import reading_filter


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a subscription may deliver now."""

    state: State
    reason: str = ""

    @property
    def may_deliver(self) -> bool:
        """Return whether it delivers, or probes an endpoint that has failed."""
        return self.state is State.ACTIVE or self.reason == Why.FAILING


def channel_of(snapshot: Snapshot, subscription: Subscription) -> Channel | None:
    """Return the channel that a subscription reads; None where it does not exist."""
    return snapshot.channel_covering(reading_filter(subscription.channel))


def standing(snapshot: Snapshot, subscription: Subscription, now: float) -> Standing:
    """Return the standing that follows from the requested state, the rights of the key, and the channel."""
    if subscription.state != State.ACTIVE:
        requested = Standing(State(subscription.state), subscription.state_reason)
        if not requested.may_deliver:
            return requested
    else:
        requested = Standing(State.ACTIVE)
    reason = _pause_reason(snapshot, subscription, now)
    return requested if reason is None else Standing(State.PAUSED, reason)


def _pause_reason(snapshot: Snapshot, subscription: Subscription, now: float) -> Why | None:
    if snapshot.membership(subscription.consumer) is None:
        return Why.CONSUMER_DISABLED
    if subscription.key and subscription.type == Type.WEBHOOK:  # each pull is authenticated anyway
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
    """Return the principal whose limits deliveries are charged to."""
    principal = snapshot.principal(subscription.key) if subscription.key else None
    if principal is not None:
        return principal
    consumer = snapshot.membership(subscription.consumer)
    if consumer is None:
        return Principal(subscription.consumer, "", "")
    return Principal(subscription.consumer, "", consumer.tier.name, limits=consumer.limits)


def secret(secret_key: bytes, subscription_id: str, generation: int) -> str:
    """Derive the signing secret of a subscription. It is not stored, and shown once.

    It changes with its generation (by rotation) and with the server's ``SECRET_KEY``.
    """
    message = f"webhook secret\0{subscription_id}\0{generation}".encode()
    return SECRET_PREFIX + base64.b64encode(hmac.digest(secret_key, message, "sha256")).decode()


def secrets_now(secret_key: bytes, subscription: Subscription, now: float) -> tuple[str, ...]:
    """Return the secrets that a message is signed with, newest first: the previous one while it is still valid."""
    secrets = [secret(secret_key, subscription.id, subscription.secret_generation)]
    if subscription.previous_secret_until is not None and now < subscription.previous_secret_until:
        secrets.append(secret(secret_key, subscription.id, subscription.secret_generation - 1))
    return tuple(secrets)
