"""The public keys of a JWKS document (RFC 7517): which of them can be used, and for which algorithms."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from jwt import PyJWK

KEYS_MAX = 100
RSA_BITS = range(2048, 8192 + 1)
"""Shorter ones can be broken, longer ones only cost."""
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""All of a public key; what else a document says, a private part too, is left behind."""
_CURVE = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class Unusable(ValueError):
    """The text is no key set; its message may be logged."""


class PublicKey:
    """One key of an issuer. The same object for as long as the issuer publishes that key."""

    __slots__ = ("_members", "_prepared", "algorithm", "is_withdrawn", "kid", "thumbprint")

    def __init__(self, kid: str | None, algorithm: str | None, members: Mapping[str, str]) -> None:
        self.kid = kid
        self.algorithm = algorithm
        """The only one that it may be used with, where its document names one."""
        self.thumbprint = hashlib.sha256(
            orjson.dumps([kid, algorithm, members], option=orjson.OPT_SORT_KEYS)
        ).hexdigest()
        self.is_withdrawn = False
        """Its issuer publishes it no more: what it signed proves nothing any more."""
        self._members = members
        self._prepared: dict[str, PyJWK] = {}

    def fits(self, algorithm: str) -> bool:
        """Say whether tokens of this algorithm can be signed with it."""
        if self.algorithm not in (None, algorithm):
            return False
        kind, curve = self._members["kty"], self._members.get("crv")
        if algorithm == "EdDSA":
            return kind == "OKP"
        return curve == _CURVE[algorithm] if algorithm in _CURVE else kind == "RSA"

    def prepared(self, algorithm: str) -> PyJWK:
        """Give it as PyJWT takes it, bound to this algorithm. Raises Unusable for a key that is none."""
        import jwt  # here and not above: who has no issuer needs no cryptography in memory

        known = self._prepared.get(algorithm)
        if known is None:
            try:
                known = self._prepared[algorithm] = jwt.PyJWK(dict(self._members), algorithm=algorithm)
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise Unusable(f"a key that is none: {type(error).__name__}") from None
        return known


def read(body: bytes) -> list[PublicKey]:
    """Read a JWKS document: the keys of it that can be used here, others are passed over. Raises Unusable."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unusable("it is not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise Unusable("it has no list of `keys`")
    if len(keys) > KEYS_MAX:
        raise Unusable(f"it has more than {KEYS_MAX} keys")
    return [key for member in keys if isinstance(member, dict) and (key := _key(member)) is not None]


def _key(document: Mapping[str, Any]) -> PublicKey | None:
    members = {name: document.get(name) for name in ("kty", *_MEMBERS.get(str(document.get("kty")), ()))}
    kid, algorithm = document.get("kid"), document.get("alg")
    is_text = all(isinstance(value, str) for value in members.values())
    if len(members) == 1 or not is_text or not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    if document.get("use", "sig") != "sig" or not _may_verify(document.get("key_ops")):
        return None
    if members["kty"] == "RSA" and _bits(str(members["n"])) not in RSA_BITS:
        return None
    return PublicKey(kid, algorithm, {name: str(value) for name, value in members.items()})


def _may_verify(operations: Any) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _bits(number: str) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)), "big").bit_length()
    except (binascii.Error, ValueError):
        return 0
