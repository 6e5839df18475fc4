"""A digest of several texts that no other texts have: each counts with its length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest_of(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of the length and the bytes of each part, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()
