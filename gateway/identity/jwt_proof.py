"""Proves JSON Web Tokens (RFC 7519, RFC 8725): issuer, signature, validity, audience and consumer.

docs/identity.md lists the checks in order. Nothing is trusted before its signature is verified: until then a token's
header and claims only select the issuer and the keys to try.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from gateway.credentials.public_keys import InvalidKeySet, PublicKey
from gateway.identity.jwks import KeySets
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import ALGORITHMS, Issuer, Membership
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal, Token, bearer
from gateway.snapshot.scopes import SCOPE

if TYPE_CHECKING:
    from jwt import PyJWS


LEEWAY_S = 1.0
"""By how much the issuer's clock may be ahead of ours when ``nbf`` is checked. ``exp`` has no leeway."""
KID_MAX_CHARS = 256
SAME_KID_MAX = 5
"""The number of keys with the same ``kid`` that are tried."""
INSTANT_MAX = 2**53
EVERYTHING = "*"
"""The scope of a token that names none: only the tier restricts it."""
TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Accepted values of ``typ``. Tokens of other types, such as ``logout+jwt``, were signed for another purpose."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_FOREIGN = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""Refused header members: they carry a key, or change how the token is read."""
_PATH = re.compile(r"\A[./~]|\.\.|[\\\s\x00-\x1f\x7f]")

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded token whose signature is not verified yet."""

    text: str
    header: Mapping[str, Any]
    payload: bytes
    claims: Claims


async def prove(snapshot: Snapshot, key_sets: KeySets, text: str) -> Principal:
    """Return the principal that a token proves.

    Raises Refused: ``unauthenticated``, or ``overloaded`` while the issuer's keys are unavailable.
    """
    opened = _open(text)
    issuer = _issuer(snapshot, opened)
    algorithm = opened.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise _refused(cause="token-algorithm")
    expires_at = _in_time(opened.claims, time.time())
    keys = await key_sets.keys(issuer, _kid(opened.header), algorithm)
    if snapshot.issuer(issuer.name) is not issuer:
        # The issuer changed while its keys were awaited.
        raise _refused(cause="token-issuer-unknown")
    signer = _signer(opened, keys[:SAME_KID_MAX], algorithm)
    _for_us(opened.claims, issuer)
    token = Token(issuer, signer, algorithm, opened.claims, _membership(snapshot, opened.claims, issuer))
    return bearer(token, _scopes(opened.claims), expires_at)


def _refused(*, cause: str) -> Refused:
    return Refused(Reason.UNAUTHENTICATED, cause=cause)


def _open(text: str) -> _Opened:
    """Decode header and claims without trusting them. Raises Refused if the text is not a compact JWS."""
    parts = text.split(".")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise _refused(cause="token-malformed")
    payload = _decoded(parts[1])
    header, claims = _members(_decoded(parts[0])), _members(payload)
    type_ = header.get("typ", "JWT")
    if header.keys() & _FOREIGN or not isinstance(type_, str) or type_.lower() not in TYPES:
        raise _refused(cause="token-malformed")
    if any(isinstance(value, dict | list) for value in header.values()):
        raise _refused(cause="token-malformed")
    return _Opened(text, header, payload, claims)


def _decoded(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise _refused(cause="token-malformed") from None


def _members(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise _refused(cause="token-malformed")
    return found


def _issuer(snapshot: Snapshot, opened: _Opened) -> Issuer:
    iss = opened.claims.get("iss")
    issuer = snapshot.issuer_of(iss) if isinstance(iss, str) else None
    if issuer is None:
        raise _refused(cause="token-issuer-unknown")
    return issuer


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is None and "kid" not in header:
        return None
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_MAX_CHARS or _PATH.search(kid):
        raise _refused(cause="token-malformed")
    return kid


def _in_time(claims: Claims, now: float) -> float:
    """Return the instant at which the token expires, in Unix seconds. Raises Refused outside its validity period."""
    expires_at, valid_from = _instant(claims, "exp"), _instant(claims, "nbf")
    if expires_at is None:
        raise _refused(cause="token-malformed")
    if expires_at <= now:
        raise _refused(cause="token-expired")
    if valid_from is not None and valid_from > now + LEEWAY_S:
        raise _refused(cause="token-too-early")
    return expires_at


def _instant(claims: Claims, name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < INSTANT_MAX:
        raise _refused(cause="token-malformed")
    return float(value)


def _signer(opened: _Opened, keys: list[PublicKey], algorithm: str) -> PublicKey:
    """Return the key that signed the token. Raises Refused if none of these keys did."""
    import jwt  # imported on first use: without issuers, processes save the memory

    for key in keys:
        try:
            proved = _jws().decode_complete(opened.text, key.prepared(algorithm), algorithms=[algorithm])
        except (jwt.PyJWTError, InvalidKeySet, ValueError):
            continue
        if proved["payload"] == opened.payload:
            return key
    raise _refused(cause="token-signature")


@cache
def _jws() -> PyJWS:
    """Return PyJWT's JWS decoder, restricted to the supported algorithms."""
    import jwt

    return jwt.PyJWS(algorithms=ALGORITHMS)


def _for_us(claims: Claims, issuer: Issuer) -> None:
    """Raise Refused for a token of another audience, or one that is bound to a key (RFC 7800)."""
    audience = claims.get("aud")
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise _refused(cause="token-audience")
    if "cnf" in claims:
        # Its bearer would have to prove possession of that key, which is not supported.
        raise _refused(cause="token-bound")


def _membership(snapshot: Snapshot, claims: Claims, issuer: Issuer) -> Membership:
    """Return the active consumer that the claim names, with its tier. Raises Refused if there is none."""
    consumer = claims.get(issuer.consumer_claim)
    membership = snapshot.membership(consumer) if isinstance(consumer, str) else None
    if membership is None:
        raise _refused(cause="token-consumer-unknown")
    return membership


def _scopes(claims: Claims) -> tuple[str, ...]:
    """Return the scopes in the claim ``scope``, or else ``scp``: a string or a list. Other values are ignored.

    A token with neither claim gets what its consumer's tier allows; the tier restricts every token.
    """
    if claims.keys().isdisjoint(("scope", "scp")):
        return (EVERYTHING,)
    claimed = claims["scope"] if "scope" in claims else claims.get("scp")
    named = claimed.split(" ") if isinstance(claimed, str) else claimed if isinstance(claimed, list) else []
    return tuple(dict.fromkeys(scope for scope in named if isinstance(scope, str) and SCOPE.fullmatch(scope)))
