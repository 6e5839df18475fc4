"""Principals: authenticated callers, as of one revision of the snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.credentials.public_keys import PublicKey
from gateway.snapshot.documents import Issuer, Limit, Membership

JWT = "jwt:"
"""The prefix of :attr:`Principal.key` for the bearer of a token; the issuer's name follows."""
MAKER_DIGITS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A verified JWT: its issuer, the key that signed it, and its claims (docs/identity.md)."""

    issuer: Issuer
    signer: PublicKey
    algorithm: str
    claims: Mapping[str, Any]
    membership: Membership
    """Its consumer as of the creation of the principal."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a verified key or token, as of one revision of the snapshot."""

    consumer: str
    key: str
    """The id of the key, or ``jwt:ISSUER`` for the bearer of a token."""
    tier: str
    scopes: tuple[str, ...] = ()
    ceiling: tuple[str, ...] | None = None
    """The tier's scopes: a right must be covered by these too. None if the tier restricts nothing."""
    limits: tuple[Limit, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    """Unix seconds; None if the credential does not expire."""
    token: Token | None = None
    """The verified token; None for a key."""

    @property
    def maker(self) -> str:
        """The identity under which it makes jobs and subscriptions: the key's id, or a hash for the bearer of a token.

        Tokens of one subject with the same scopes, such as a renewed one, are one maker; without a subject, each token
        is its own.
        """
        if self.token is None:
            return self.key
        subject = self.token.claims.get("sub") or dict(self.token.claims)
        identity = json.dumps([subject, sorted(self.scopes)], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return f"{self.key}#{digest[:MAKER_DIGITS]}"


def bearer(token: Token, scopes: tuple[str, ...], expires_at: float | None) -> Principal:
    """Return the principal of a verified token: it has the scopes of the token and the limits of its consumer."""
    membership = token.membership
    return Principal(
        consumer=membership.consumer.name,
        key=f"{JWT}{token.issuer.name}",
        tier=membership.tier.name,
        scopes=scopes,
        ceiling=membership.tier.scopes,
        limits=membership.limits,
        metadata={**membership.consumer.metadata, "claims": token.claims},
        expires_at=expires_at,
        token=token,
    )
