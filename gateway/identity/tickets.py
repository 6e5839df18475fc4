"""Connect tickets: stand-ins for a key or token, single-use or for one stream and its resumptions, in the shared store.

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
from gateway.credentials.api_keys import is_resumable, new_ticket, ticket_store_key
from gateway.identity.jwks import KeySets
from gateway.identity.ticket_holds import Hold, TicketHolds, unchecked
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Issuer
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal, Token, bearer

if TYPE_CHECKING:
    from redis.asyncio import Redis

SKEW_S = 5.0
"""The largest difference tolerated between the clocks of two gateways."""


class Tickets:
    """Issues and redeems connect tickets.

    A resumable ticket is opened within ``ticket_s``, as any other. It is then bound to the stream that it has opened,
    and expires ``ticket_idle_s`` after the last connection to that has ended.
    """

    def __init__(self, redis: Redis, config: Config, snapshot: Snapshot, key_sets: KeySets) -> None:
        self._redis = redis
        self._lifetime_s = config.ticket_s
        self._idle_s = config.ticket_idle_s
        self._timeout_s = config.engine_timeout_s
        self._snapshot = snapshot
        self._key_sets = key_sets
        self.holds = TicketHolds(redis, config.engine_timeout_s, config.ticket_idle_s)

    async def issue(self, principal: Principal, *, resumable: bool = False) -> str:
        """Store and return a new ticket of this principal, to be opened within ``ticket_s`` seconds. Raises Refused."""
        ticket = new_ticket(resumable=resumable)
        name, subject = ticket_store_key(ticket), _subject(principal)
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline() as pipeline:
                if resumable:
                    pipeline.hset(name, mapping={"subject": subject, "at": time.time()})
                    pipeline.expire(name, self._lifetime_s)
                else:
                    pipeline.set(name, b"%d %b" % (time.time(), subject), ex=self._lifetime_s)
                await pipeline.execute()
        except (OSError, TimeoutError, RedisError) as error:
            raise Refused(Reason.OVERLOADED, "Tickets cannot be issued right now.", retry_after_s=1) from error
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        """Return the principal of a ticket as it is now; a single-use one is taken out of the store. Raises Refused.

        ``unauthenticated`` for a ticket that is unknown, used, too old or whose key or token no longer counts;
        ``overloaded`` if the store, or the keys of a token's issuer, are unavailable.
        """
        subject = await self._kept(ticket) if is_resumable(ticket) else await self._spent(ticket)
        principal = await self._principal_of(subject) if subject else None
        if principal is None:
            raise Refused(Reason.UNAUTHENTICATED, cause="ticket-unknown")
        return principal

    async def take(self, ticket: str, principal: Principal, stream: str) -> Hold:
        """Make a connection to this stream the only one of a resumable ticket. Raises Refused.

        It takes over from a connection that is still open, which is closed first: the gateway may not have noticed yet
        that its client is gone. ``forbidden`` for a ticket that has opened another stream.
        """
        hold = await self.holds.take(ticket_store_key(ticket), _subject(principal), stream)
        if hold is None:
            raise Refused(Reason.UNAUTHENTICATED, cause="ticket-unknown")
        return hold

    async def _spent(self, ticket: str) -> bytes:
        """Take a single-use ticket out of the store and return its subject, empty if it is unknown or too old."""
        try:
            async with asyncio.timeout(self._timeout_s):
                record: Any = await self._redis.getdel(ticket_store_key(ticket))
        except (OSError, TimeoutError, RedisError) as error:
            raise unchecked() from error
        issued_at, _, subject = (record or b"0").partition(b" ")
        return subject if self._is_recent(int(issued_at), self._lifetime_s) else b""

    async def _kept(self, ticket: str) -> bytes:
        """Return the subject of a resumable ticket, empty if it is unknown or too old."""
        name = ticket_store_key(ticket)
        try:
            async with asyncio.timeout(self._timeout_s):
                fields: Any = await self._redis.hmget(name, ["subject", "at", "stream"])
        except (OSError, TimeoutError, RedisError) as error:
            known = self.holds.known(name)
            if known is None:
                raise unchecked() from error
            return known.subject
        subject, at, stream = fields
        return subject if self._is_recent(float(at or 0), self._idle_s if stream else self._lifetime_s) else b""

    def _is_recent(self, at: float, lifetime_s: float) -> bool:
        """Check the age too: the store expires tickets by its own clock, which may have been set back."""
        return -SKEW_S <= time.time() - at <= lifetime_s + SKEW_S

    async def _principal_of(self, subject: bytes) -> Principal | None:
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


def _subject(principal: Principal) -> bytes:
    """Format what the store keeps of the owner of a ticket: the id of a key, or what a token proved."""
    token = principal.token
    if token is None:
        return principal.key.encode()
    return orjson.dumps(
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


def _fingerprint(issuer: Issuer) -> str:
    """Return a hash of the issuer's whole configuration: what an earlier configuration proved no longer counts."""
    return hashlib.sha256(repr(issuer).encode()).hexdigest()
