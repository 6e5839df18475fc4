"""Authenticate: prove whose call it is and that it may be made, before a ``101`` or a CONNACK is sent."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Credential, Principal, Right
from gateway.credentials import Malformed, digest, parse, ticket_store_key
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot import Key

ANONYMOUS = Principal(consumer="", key="", tier="")
"""Who follows a signed link: nobody in particular, with no right but that link."""

_UNKNOWN_DIGEST = "0" * 64
PROOFS_KEPT = 10_000
_MARK_KEY = secrets.token_bytes(32)
_proved: dict[bytes, Key] = {}
"""Keys proved in this process, by a keyed hash of what was shown; good while the snapshot holds that very object."""
_ADDRESSES_REMEMBERED = 10_000


async def authenticate(plane: Plane, call: Call) -> Principal:
    """Prove the caller and its rights to this call. Raises Refused.

    Unknown, malformed, revoked and expired keys look the same from outside and are told apart by the refusal's cause.
    """
    if call.is_anonymous:
        return ANONYMOUS
    if call.credential is None:
        raise Refused(Reason.UNAUTHENTICATED, cause="credential-missing")
    mark = blake2b(call.credential.value.encode(), digest_size=16, key=_MARK_KEY).digest()
    known = _proved.get(mark)
    if known is not None and plane.snapshot.key(known.id) is known:
        key = _usable(known)
    else:
        key = await _prove_anew(plane, call, call.credential, mark)
    principal = plane.snapshot.principal(key.id)
    if principal is None:
        raise Refused(Reason.UNAUTHENTICATED, cause="consumer-disabled")
    _check_place(key, call)
    for right in call.rights:
        require(principal, right)
    return principal


async def _prove_anew(plane: Plane, call: Call, credential: Credential, mark: bytes) -> Key:
    """Prove a credential that this process has not seen proved; those who guess are stopped before any look-up.

    Keys proved before go on working from an address where others guess: they need no look-up.
    """
    plane.failed_keys.check(call.ip)
    try:
        key = await _prove(plane, credential)
    except Refused as refused:
        if refused.reason is Reason.UNAUTHENTICATED:
            plane.failed_keys.add(call.ip)
        raise
    if credential.kind == "key":
        if len(_proved) >= PROOFS_KEPT:
            _proved.clear()
        _proved[mark] = key
    return key


async def _prove(plane: Plane, credential: Credential) -> Key:
    """Give the key that the credential proves. Raises Refused ``unauthenticated``."""
    if credential.kind == "ticket":
        return await _redeem(plane, credential.value)
    if credential.kind == "token":
        raise Refused(Reason.UNAUTHENTICATED, cause="token-issuer-unknown")
    try:
        key_id = parse(credential.value)
    except Malformed:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-malformed") from None
    key = plane.snapshot.key(key_id)
    shown = digest(credential.value, plane.config.key_pepper)
    # An unknown key is compared too, so that it takes as long as a known one.
    is_proved = hmac.compare_digest(shown, key.digest if key is not None else _UNKNOWN_DIGEST)
    if key is None or not is_proved:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-unknown")
    return _usable(key)


def _usable(key: Key) -> Key:
    if key.revoked_at is not None and key.revoked_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-revoked")
    if key.expires_at is not None and key.expires_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-expired")
    return key


async def _redeem(plane: Plane, ticket: str) -> Key:
    """Take a connect ticket out of the store: it works once."""
    try:
        async with asyncio.timeout(plane.config.engine_timeout_s):
            key_id: Any = await plane.redis.getdel(ticket_store_key(ticket))
    except (OSError, TimeoutError, plane.redis_errors) as error:
        raise Refused(Reason.OVERLOADED, "Tickets cannot be checked right now.", retry_after_s=1) from error
    key = plane.snapshot.key(key_id.decode()) if key_id is not None else None
    if key is None:
        raise Refused(Reason.UNAUTHENTICATED, cause="ticket-unknown")
    return _usable(key)


def _check_place(key: Key, call: Call) -> None:
    if key.allowed_ips and not any(ip_address(call.ip) in network for network in key.allowed_ips):
        raise Refused(Reason.IP_NOT_ALLOWED)
    if key.allowed_origins and call.origin is not None and call.origin not in key.allowed_origins:
        raise Refused(Reason.ORIGIN_NOT_ALLOWED)


def require(principal: Principal, right: Right) -> None:
    """Raise Refused ``forbidden`` where the principal lacks the right."""
    if not allowed(principal, right):
        lacks = "This key lacks" if not _covered(principal.scopes, right.text) else "This key's tier does not give"
        raise Refused(Reason.FORBIDDEN, f"{lacks} the scope `{right}`.")


def allowed(principal: Principal, right: Right) -> bool:
    """Say whether one of the principal's scopes covers the right, and one of its tier's too."""
    ceiling = principal.ceiling
    return _covered(principal.scopes, right.text) and (ceiling is None or _covered(ceiling, right.text))


@lru_cache(maxsize=65_536)
def _covered(scopes: tuple[str, ...], wanted: str) -> bool:
    return wanted in scopes or any(_pattern(scope).fullmatch(wanted) for scope in scopes)


@lru_cache(maxsize=4_096)
def _pattern(scope: str) -> re.Pattern[str]:
    """Translate a scope: ``*`` is any text, slashes too; ``{parameter}`` is one level of an address."""
    parts = re.split(r"(\*|\{[^/{}]*\})", scope)
    translated = (".*" if part == "*" else "[^/]+" if part.startswith("{") else re.escape(part) for part in parts)
    return re.compile("".join(translated), re.DOTALL)


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
