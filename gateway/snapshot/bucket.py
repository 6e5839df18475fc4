"""The snapshot's bucket in NATS KV: its stream, its subjects, and the key of each object."""

from __future__ import annotations

import base64

from gateway.link.nats import SNAPSHOT_BUCKET

STREAM = f"KV_{SNAPSHOT_BUCKET}"
PREFIX = f"$KV.{SNAPSHOT_BUCKET}."


def kv_key(kind: str, name: str) -> str:
    """Return the key of an object: ids of API keys unchanged, other names as base64url without padding."""
    return f"{kind}.{name if kind == 'key' else base64.urlsafe_b64encode(name.encode()).rstrip(b'=').decode()}"


def object_of(key: str) -> tuple[str, str]:
    """Return the (kind, name) of the object under a key. Raises ValueError for another key."""
    kind, _, name = key.partition(".")
    if kind == "key":
        return kind, name
    return kind, base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
