"""Authenticate: prove whose call it is and that it may be made, before a ``101`` or a CONNACK is sent."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.credentials.api_keys import Credential, Malformed, digest, parse, ticket_store_key
from gateway.identity.jwt_proof import prove
from gateway.identity.places import is_foreign, require_place
from gateway.identity.rights import allowed, forbidden, lacking, require
from gateway.identity.tickets import redeemed
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Key
from gateway.snapshot.principal import Principal

if TYPE_CHECKING:
    from gateway.plane import Plane

__all__ = ["ANONYMOUS", "FailedKeys", "allowed", "authenticate", "require"]

ANONYMOUS = Principal(consumer="", key="", tier="")
"""Who follows a signed link: nobody in particular, with no right but that link."""

_UNKNOWN_DIGEST = "0" * 64
PROOFS_KEPT = 10_000
_MARK_KEY = secrets.token_bytes(32)
_proved: dict[bytes, Key | Principal] = {}
"""Keys, and the holders of tokens, proved in this process, by a keyed hash of what was shown; good while the snapshot
holds that very object."""
_NO_GUESS = frozenset(
    {"consumer-disabled", "token-expired", "token-too-early", "token-audience", "token-bound", "token-consumer-unknown"}
)
"""Causes that say nothing of guessing: the credential was signed, or its time alone was looked at."""
_ADDRESSES_REMEMBERED = 10_000


async def authenticate(plane: Plane, call: Call) -> Principal:
    """Prove the caller and its rights to this call. Raises Refused.

    Unknown, malformed, revoked and expired credentials look the same from outside and are told apart by the refusal's
    cause.
    """
    if call.is_anonymous:
        return ANONYMOUS
    if call.credential is None:
        raise _missing(call)
    shown = f"{call.credential.kind} {call.credential.value}"
    mark = blake2b(shown.encode(), digest_size=16, key=_MARK_KEY).digest()
    principal = _proved_before(plane, mark) or await _prove_anew(plane, call, call.credential, mark)
    if principal.token is None and (key := plane.snapshot.key(principal.key)) is not None:
        require_place(key, call.ip, call.origin)
    lacks = lacking(principal, call.rights, call.headers)
    if lacks is not None:
        raise forbidden(principal, lacks)
    return principal


def _missing(call: Call) -> Refused:
    """Refuse who shows nothing; a foreign page that would ride on the cookie of who is signed in, by its origin."""
    if (
        call.protocol is Protocol.WEBSOCKET
        and call.header(b"cookie") is not None
        and is_foreign(call.origin, call.header(b"host") or "")
    ):
        return Refused(
            Reason.ORIGIN_NOT_ALLOWED, "No credential was shown, and a cookie opens no socket.", cause="origin-foreign"
        )
    return Refused(Reason.UNAUTHENTICATED, cause="credential-missing")


def _proved_before(plane: Plane, mark: bytes) -> Principal | None:
    """Give who it is that a credential was proved to be, while nothing has changed about it. Raises Refused."""
    known = _proved.get(mark)
    if isinstance(known, Key):
        return _principal_of(plane, _usable(known)) if plane.snapshot.key(known.id) is known else None
    if known is None:
        return None
    principal = plane.snapshot.principal_again(known)
    if principal is None:
        return None
    _proved[mark] = principal
    return _unexpired(principal)


async def _prove_anew(plane: Plane, call: Call, credential: Credential, mark: bytes) -> Principal:
    """Prove a credential that this process has not seen proved; those who guess are stopped before any look-up.

    What was proved before goes on working from an address where others guess: it needs no look-up.
    """
    plane.failed_keys.check(call.ip)
    try:
        principal, proof = await _prove(plane, credential)
    except Refused as refused:
        if refused.reason is Reason.UNAUTHENTICATED and refused.cause not in _NO_GUESS:
            plane.failed_keys.add(call.ip)
        raise
    if proof is not None:
        if len(_proved) >= PROOFS_KEPT:
            _proved.clear()
        _proved[mark] = proof
    return principal


async def _prove(plane: Plane, credential: Credential) -> tuple[Principal, Key | Principal | None]:
    """Give who the credential proves to be, and what of that can be remembered. Raises Refused."""
    if credential.kind == "ticket":
        return await _redeem(plane, credential.value), None
    if credential.kind == "token":
        principal = await prove(plane, credential.value)
        return principal, principal
    key = _key(plane, credential.value)
    return _principal_of(plane, key), key


def _key(plane: Plane, text: str) -> Key:
    """Give the key that a text proves to know. Raises Refused ``unauthenticated``."""
    try:
        key_id = parse(text)
    except Malformed:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-malformed") from None
    key = plane.snapshot.key(key_id)
    shown = digest(text, plane.config.key_pepper)
    # An unknown key is compared too, so that it takes as long as a known one.
    is_proved = hmac.compare_digest(shown, key.digest if key is not None else _UNKNOWN_DIGEST)
    if key is None or not is_proved:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-unknown")
    return _usable(key)


def _principal_of(plane: Plane, key: Key) -> Principal:
    principal = plane.snapshot.principal(key.id)
    if principal is None:
        raise Refused(Reason.UNAUTHENTICATED, cause="consumer-disabled")
    return principal


def _usable(key: Key) -> Key:
    if key.revoked_at is not None:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-revoked")
    if key.expires_at is not None and key.expires_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-expired")
    return key


def _unexpired(principal: Principal) -> Principal:
    if principal.expires_at is not None and principal.expires_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-expired" if principal.token is None else "token-expired")
    return principal


async def _redeem(plane: Plane, ticket: str) -> Principal:
    """Take a connect ticket out of the store: it works once."""
    try:
        async with asyncio.timeout(plane.config.engine_timeout_s):
            kept: Any = await plane.redis.getdel(ticket_store_key(ticket))
    except (OSError, TimeoutError, plane.redis_errors) as error:
        raise Refused(Reason.OVERLOADED, "Tickets cannot be checked right now.", retry_after_s=1) from error
    principal = await redeemed(plane, kept) if kept is not None else None
    if principal is None:
        raise Refused(Reason.UNAUTHENTICATED, cause="ticket-unknown")
    return _unexpired(principal)


class FailedKeys:
    """Counts failed keys by address, so that guessing stops before any look-up."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._failed: dict[str, tuple[float, int]] = {}

    def check(self, ip: str) -> None:
        """Raise Refused ``rate-limited`` for an address that has failed too often in this minute."""
        since, count = self._failed.get(ip, (0.0, 0))
        left_s = since + 60 - time.monotonic()
        if count >= self._per_minute and left_s > 0:
            raise Refused(
                Reason.RATE_LIMITED,
                "Too many failed keys from this address.",
                retry_after_s=left_s,
                cause="failed-keys",
            )

    def add(self, ip: str) -> None:
        """Count one failure."""
        now = time.monotonic()
        since, count = self._failed.get(ip, (now, 0))
        if now - since >= 60:
            since, count = now, 0
        if len(self._failed) >= _ADDRESSES_REMEMBERED and ip not in self._failed:
            self._failed.pop(next(iter(self._failed)))
        self._failed[ip] = (since, count + 1)
