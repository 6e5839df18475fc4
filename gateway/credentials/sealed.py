"""Secrets that must be readable again, sealed: encrypted with AES-256-GCM under a key derived from ``SECRET_KEY``.

A sealed secret is bound to its purpose, such as the route that it belongs to, and cannot be opened for another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
"""A random nonce (NIST SP 800-38D 8.2.2): the same secret is sealed differently each time."""
ID_CHARS = 12


class NotOpened(ValueError):
    """A sealed secret was changed, belongs to another purpose, or was sealed under another ``SECRET_KEY``."""


class Sealed(str):
    """A sealed secret as text; a type of its own, so that no text of a caller is taken for one."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """A name that tells it from every other one and reveals nothing of the secret; empty if there is none."""
        return hashlib.sha256(self.encode()).hexdigest()[:ID_CHARS] if self else ""


def seal(secret_key: bytes, purpose: str, secret: bytes) -> Sealed:
    """Encrypt a secret for a purpose."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = _cipher(secret_key).encrypt(nonce, secret, purpose.encode())
    return Sealed(base64.urlsafe_b64encode(nonce + sealed).decode())


def unseal(secret_key: bytes, purpose: str, sealed: str) -> bytes:
    """Decrypt a secret. Raises NotOpened."""
    from cryptography.exceptions import InvalidTag

    try:
        data = base64.urlsafe_b64decode(sealed)
        return _cipher(secret_key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], purpose.encode())
    except (InvalidTag, ValueError):
        raise NotOpened("the secret cannot be decrypted: was SECRET_KEY changed?") from None


def _cipher(secret_key: bytes) -> AESGCM:
    # Imported late: most processes have no secret to open, and the package takes memory.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(secret_key, b"sealed secrets", "sha256"))
