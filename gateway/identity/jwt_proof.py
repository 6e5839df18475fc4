"""Proves JSON Web Tokens (RFC 7519, RFC 8725): whose word they are, whether it was given, and for whom.

What is checked, and in which order, is told in docs/identity.md. Only what was signed is believed: until then a token's
header and claims merely choose which issuer and which of its keys to try.
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

from gateway.credentials.public_keys import PublicKey, Unusable
from gateway.identity.rights import SCOPE
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import ALGORITHMS, Issuer, Standing
from gateway.snapshot.principal import Principal, Token, bearer

if TYPE_CHECKING:
    from jwt import PyJWS

    from gateway.plane import Plane

LEEWAY_S = 1.0
"""How far the issuer's clock may be ahead of ours where a token says from when it is valid. None for its end."""
KID_MAX_CHARS = 256
SAME_KID_MAX = 5
"""So many keys of one name are tried."""
INSTANT_MAX = 2**53
EVERYTHING = "*"
"""The scope that the tier alone bounds."""
TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""What a token may say it is. Others, such as ``logout+jwt``, were signed for another purpose."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_FOREIGN = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""Header members that bring a key along, or change how the token is to be read."""
_PATH = re.compile(r"\A[./~]|\.\.|[\\\s\x00-\x1f\x7f]")

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A token whose signature nobody has looked at."""

    text: str
    header: Mapping[str, Any]
    payload: bytes
    claims: Claims


async def prove(plane: Plane, text: str) -> Principal:
    """Give whom a token stands for. Raises Refused: ``unauthenticated``, or ``overloaded`` where nobody can say now."""
    opened = _open(text)
    issuer = _issuer(plane, opened)
    algorithm = opened.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise _refused(cause="token-algorithm")
    expires_at = _in_time(opened.claims, time.time())
    keys = await plane.key_sets.keys(issuer, _kid(opened.header), algorithm)
    if plane.snapshot.issuer(issuer.name) is not issuer:
        # It was changed while its keys were waited for.
        raise _refused(cause="token-issuer-unknown")
    signer = _signer(opened, keys[:SAME_KID_MAX], algorithm)
    _for_us(opened.claims, issuer)
    token = Token(issuer, signer, algorithm, opened.claims, _standing(plane, opened.claims, issuer))
    return bearer(token, _scopes(opened.claims), expires_at)


def _refused(*, cause: str) -> Refused:
    return Refused(Reason.UNAUTHENTICATED, cause=cause)


def _open(text: str) -> _Opened:
    """Read header and claims, believing nothing. Raises Refused for what is no signed token of this form."""
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


def _issuer(plane: Plane, opened: _Opened) -> Issuer:
    iss = opened.claims.get("iss")
    issuer = plane.snapshot.issuer_of(iss) if isinstance(iss, str) else None
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
    """Give the instant at which the token expires. Raises Refused where it has none, is over or has not begun."""
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
    """Give the key that signed the token. Raises Refused where none of these did."""
    import jwt  # here and not above: who has no issuer needs no cryptography in memory

    for key in keys:
        try:
            proved = _jws().decode_complete(opened.text, key.prepared(algorithm), algorithms=[algorithm])
        except (jwt.PyJWTError, Unusable, ValueError):
            continue
        if proved["payload"] == opened.payload:
            return key
    raise _refused(cause="token-signature")


@cache
def _jws() -> PyJWS:
    """Give PyJWT's reader of signed texts, which knows no algorithm but ours."""
    import jwt

    return jwt.PyJWS(algorithms=ALGORITHMS)


def _for_us(claims: Claims, issuer: Issuer) -> None:
    """Raise Refused for a token that was signed for another audience, or that proves nothing by being shown."""
    audience = claims.get("aud")
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise _refused(cause="token-audience")
    if "cnf" in claims:
        # Its bearer must prove to hold a key as well (RFC 7800), which is not asked for here.
        raise _refused(cause="token-bound")


def _standing(plane: Plane, claims: Claims, issuer: Issuer) -> Standing:
    """Say how the consumer stands that a claim names. Raises Refused where there is none, or none that is active."""
    consumer = claims.get(issuer.consumer_claim)
    standing = plane.snapshot.standing(consumer) if isinstance(consumer, str) else None
    if standing is None:
        raise _refused(cause="token-consumer-unknown")
    return standing


def _scopes(claims: Claims) -> tuple[str, ...]:
    """Give the scopes of ``scope``, else of ``scp``: one text or a list. What is no scope of ours gives no right.

    An issuer that says nothing of scopes leaves them to the consumer's tier, which bounds every token.
    """
    if claims.keys().isdisjoint(("scope", "scp")):
        return (EVERYTHING,)
    said = claims["scope"] if "scope" in claims else claims.get("scp")
    named = said.split(" ") if isinstance(said, str) else said if isinstance(said, list) else []
    return tuple(dict.fromkeys(scope for scope in named if isinstance(scope, str) and SCOPE.fullmatch(scope)))
