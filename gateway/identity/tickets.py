"""What a connect ticket stands for, as it lies in the store: a key's id, or a token's word without the token."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import orjson

from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal, Token, bearer

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot.documents import Issuer


SKEW_S = 5.0
"""By so much the clocks of two gateways may differ."""


def stored(principal: Principal) -> bytes:
    """Say what is to be kept of the one to whom a ticket is issued, and when it was."""
    return b"%d %b" % (time.time(), _whom(principal))


def _whom(principal: Principal) -> bytes:
    token = principal.token
    if token is None:
        return principal.key.encode()
    return orjson.dumps(
        {
            "issuer": token.issuer.name,
            "as": _as(token.issuer),
            "signer": token.signer.thumbprint,
            "kid": token.signer.kid,
            "algorithm": token.algorithm,
            "consumer": principal.consumer,
            "scopes": principal.scopes,
            "expires_at": principal.expires_at,
            "claims": token.claims,
        }
    )


async def redeemed(plane: Plane, kept: bytes) -> Principal | None:
    """Give who the bearer of a ticket is: what its key or token proved, as that stands now; None where it is nobody.

    Raises Refused ``overloaded`` where the keys of a token's issuer cannot be had.
    """
    issued_at, _, kept = kept.partition(b" ")
    if not -SKEW_S <= time.time() - int(issued_at) <= plane.config.ticket_s + SKEW_S:
        return None  # the clock was set: the store, which forgets by its own, might keep it for long
    if not kept.startswith(b"{"):
        return plane.snapshot.principal(kept.decode())
    said: dict[str, Any] = orjson.loads(kept)
    issuer = plane.snapshot.issuer(said["issuer"])
    standing = plane.snapshot.standing(said["consumer"])
    if issuer is None or _as(issuer) != said["as"] or standing is None:
        return None
    try:
        keys = await plane.key_sets.keys(issuer, said["kid"], said["algorithm"])
    except Refused as refused:
        if refused.reason is Reason.OVERLOADED:
            raise
        return None
    if plane.snapshot.issuer(issuer.name) is not issuer:
        return None
    signer = next((key for key in keys if key.thumbprint == said["signer"]), None)
    if signer is None:
        return None
    token = Token(issuer, signer, said["algorithm"], said["claims"], standing)
    return bearer(token, tuple(said["scopes"]), said["expires_at"])


def _as(issuer: Issuer) -> str:
    """Tell one state of an issuer from another: what was proved by an earlier one is proved no more."""
    return hashlib.sha256(repr(issuer).encode()).hexdigest()
