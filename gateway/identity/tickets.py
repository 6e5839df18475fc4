"""Connect tickets: single-use, short-lived stand-ins for a key or token, kept in the shared store.

A ticket stands for a key's id, or for what a token proved, without the token itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import orjson
from redis.exceptions import RedisError

from gateway.config import Config
from gateway.credentials.api_keys import new_ticket, ticket_store_key
from gateway.identity.jwks import KeySets
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Issuer
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal, Token, bearer

if TYPE_CHECKING:
    from redis.asyncio import Redis

SKEW_S = 5.0
"""The largest difference tolerated between the clocks of two gateways."""


class Tickets:
    """Issues and redeems connect tickets."""

    def __init__(self, redis: Redis, config: Config, snapshot: Snapshot, key_sets: KeySets) -> None:
        self._redis = redis
        self._lifetime_s = config.ticket_s
        self._timeout_s = config.engine_timeout_s
        self._snapshot = snapshot
        self._key_sets = key_sets

    async def issue(self, principal: Principal) -> str:
        """Store and return a new ticket for this principal, valid once within ``ticket_s`` seconds. Raises Refused."""
        ticket = new_ticket()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.set(ticket_store_key(ticket), _record(principal), ex=self._lifetime_s)
        except (OSError, TimeoutError, RedisError) as error:
            raise Refused(Reason.OVERLOADED, "Tickets cannot be issued right now.", retry_after_s=1) from error
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        """Take a ticket out of the store and return its principal as it is now. Raises Refused.

        ``unauthenticated`` for a ticket that is unknown, used, too old or whose key or token no longer counts;
        ``overloaded`` if the store, or the keys of a token's issuer, are unavailable.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                record: Any = await self._redis.getdel(ticket_store_key(ticket))
        except (OSError, TimeoutError, RedisError) as error:
            raise Refused(Reason.OVERLOADED, "Tickets cannot be checked right now.", retry_after_s=1) from error
        principal = await self._principal_of(record) if record is not None else None
        if principal is None:
            raise Refused(Reason.UNAUTHENTICATED, cause="ticket-unknown")
        return principal

    async def _principal_of(self, record: bytes) -> Principal | None:
        issued_at, _, subject = record.partition(b" ")
        if not -SKEW_S <= time.time() - int(issued_at) <= self._lifetime_s + SKEW_S:
            return None  # The store expires tickets by its own clock, which may have been set back.
        if not subject.startswith(b"{"):
            return self._snapshot.principal(subject.decode())
        return await self._bearer(orjson.loads(subject))

    async def _bearer(self, proof: dict[str, Any]) -> Principal | None:
        """Return the principal of a token that was proved before, if its issuer, signer and consumer still stand."""
        issuer = self._snapshot.issuer(proof["issuer"])
        membership = self._snapshot.membership(proof["consumer"])
        if issuer is None or _fingerprint(issuer) != proof["as"] or membership is None:
            return None
        try:
            keys = await self._key_sets.keys(issuer, proof["kid"], proof["algorithm"])
        except Refused as refused:
            if refused.reason is Reason.OVERLOADED:
                raise
            return None
        if self._snapshot.issuer(issuer.name) is not issuer:
            return None
        signer = next((key for key in keys if key.thumbprint == proof["signer"]), None)
        if signer is None:
            return None
        token = Token(issuer, signer, proof["algorithm"], proof["claims"], membership)
        return bearer(token, tuple(proof["scopes"]), proof["expires_at"])


def _record(principal: Principal) -> bytes:
    """Format what the store keeps of a ticket: when it was issued, and for whom."""
    token = principal.token
    if token is None:
        return b"%d %b" % (time.time(), principal.key.encode())
    proof = orjson.dumps(
        {
            "issuer": token.issuer.name,
            "as": _fingerprint(token.issuer),
            "signer": token.signer.thumbprint,
            "kid": token.signer.kid,
            "algorithm": token.algorithm,
            "consumer": principal.consumer,
            "scopes": principal.scopes,
            "expires_at": principal.expires_at,
            "claims": token.claims,
        }
    )
    return b"%d %b" % (time.time(), proof)


def _fingerprint(issuer: Issuer) -> str:
    """Return a hash of the issuer's whole configuration: what an earlier configuration proved no longer counts."""
    return hashlib.sha256(repr(issuer).encode()).hexdigest()
