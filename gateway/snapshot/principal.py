"""Who a caller was proved to be, as of one snapshot revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.credentials.public_keys import PublicKey
from gateway.snapshot.documents import Issuer, Limit, Standing

JWT = "jwt:"
"""What the key of a principal begins with whose proof was a token; the issuer's name follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A JWT that was proved: by whose word, with which of their keys, and what it claims (docs/identity.md)."""

    issuer: Issuer
    signer: PublicKey
    algorithm: str
    claims: Mapping[str, Any]
    standing: Standing
    """How its consumer stood when the principal was made."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key or token was proved to belong to, as of one snapshot revision."""

    consumer: str
    key: str
    """The id of the key, or ``jwt:ISSUER`` for the holder of a token."""
    tier: str
    scopes: tuple[str, ...] = ()
    ceiling: tuple[str, ...] | None = None
    """The tier's scopes: what is not in both is not allowed. None where the tier bounds nothing."""
    limits: tuple[Limit, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    """Unix seconds; None where the credential does not expire."""
    token: Token | None = None
    """What the holder of a JWT has proved; None for a key's."""


def bearer(token: Token, scopes: tuple[str, ...], expires_at: float | None) -> Principal:
    """Give whom a proved token stands for: what it may do is the token's, its limits are its consumer's."""
    standing = token.standing
    return Principal(
        consumer=standing.consumer.name,
        key=f"{JWT}{token.issuer.name}",
        tier=standing.tier.name,
        scopes=scopes,
        ceiling=standing.tier.scopes,
        limits=standing.limits,
        metadata={**standing.consumer.metadata, "claims": token.claims},
        expires_at=expires_at,
        token=token,
    )
