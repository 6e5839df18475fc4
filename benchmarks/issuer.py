"""An issuer of RS256 tokens, whose key is made anew in each run."""

from __future__ import annotations

import json
import time
from functools import cache

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER, AUDIENCE = "https://id.example/", "api"
KID, ALGORITHM = "k1", "RS256"
TOKEN_LIVES_S = 7_200


@cache
def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def token(consumer: str) -> str:
    """Return a token of a consumer that may call everything."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": consumer, "exp": time.time() + TOKEN_LIVES_S, "scope": "call:*"}
    return jwt.encode(claims, _private_key(), algorithm=ALGORITHM, headers={"kid": KID})


def key_set() -> str:
    """Return the public key as a JSON Web Key Set (RFC 7517)."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(_private_key().public_key(), as_dict=True)
    return json.dumps({"keys": [public | {"kid": KID}]})


def public_pem() -> bytes:
    """Return the public key in PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return _private_key().public_key().public_bytes(encoding, form)
