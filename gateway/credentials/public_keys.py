"""The public keys of a JWKS document (RFC 7517) that can verify tokens, with their algorithms."""

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
"""Shorter keys are not secure, longer ones only slow."""
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""Members of a public key; all others, including private ones, are ignored."""
_CURVE = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class InvalidKeySet(ValueError):
    """The document is not a usable key set, or a key not usable; the message is safe to log."""


class PublicKey:
    """One key of an issuer; the same object for as long as the issuer publishes the key."""

    __slots__ = ("_members", "_prepared", "algorithm", "is_withdrawn", "kid", "thumbprint")

    def __init__(self, kid: str | None, algorithm: str | None, members: Mapping[str, str]) -> None:
        self.kid = kid
        self.algorithm = algorithm
        """The only algorithm for which it may be used, if its document names one."""
        self.thumbprint = hashlib.sha256(
            orjson.dumps([kid, algorithm, members], option=orjson.OPT_SORT_KEYS)
        ).hexdigest()
        self.is_withdrawn = False
        """Whether the issuer no longer publishes it, so that tokens signed with it are invalid."""
        self._members = members
        self._prepared: dict[str, PyJWK] = {}

    def fits(self, algorithm: str) -> bool:
        """Return whether it can verify tokens of this algorithm."""
        if self.algorithm not in (None, algorithm):
            return False
        kind, curve = self._members["kty"], self._members.get("crv")
        if algorithm == "EdDSA":
            return kind == "OKP"
        return curve == _CURVE[algorithm] if algorithm in _CURVE else kind == "RSA"

    def prepared(self, algorithm: str) -> PyJWK:
        """Return it as a PyJWT key bound to this algorithm. Raises InvalidKeySet if the key is invalid."""
        import jwt  # imported late: without an issuer, cryptography is not loaded

        key = self._prepared.get(algorithm)
        if key is None:
            try:
                key = self._prepared[algorithm] = jwt.PyJWK(dict(self._members), algorithm=algorithm)
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise InvalidKeySet(f"a key is invalid: {type(error).__name__}") from None
        return key


def read(body: bytes) -> list[PublicKey]:
    """Return the usable keys of a JWKS document; others are ignored. Raises InvalidKeySet."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidKeySet("the document is not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise InvalidKeySet("the document has no list `keys`")
    if len(keys) > KEYS_MAX:
        raise InvalidKeySet(f"the document has more than {KEYS_MAX} keys")
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
