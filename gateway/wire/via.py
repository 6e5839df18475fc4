"""The field ``Via`` (RFC 9110 7.6.3): the gateway's own entry, and whether a message has passed the gateway before."""

from __future__ import annotations

import hmac


def own_entry(secret: bytes) -> bytes:
    """Return the entry of a deployment: gateways that share no secret are different ones, and may be chained."""
    return b"1.1 apimgmt-" + hmac.digest(secret, b"via", "sha256")[:6].hex().encode()


def has_passed(entry: bytes, value: bytes) -> bool:
    """Return whether a value of ``Via`` names who adds this entry, by whatever version of HTTP."""
    name = entry.split()[1:]
    return any(part.split()[1:2] == name for part in value.lower().split(b","))
