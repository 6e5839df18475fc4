"""The generated secrets of a data directory: ``secrets.json``, mode 0600. They are never printed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import cast

NAMES = ("secret_key", "key_pepper", "redis_password", "nats_user", "nats_password", "admin_password")
FILE_NAME = "secrets.json"


@lru_cache(maxsize=8)
def load_or_create(data_dir: Path) -> dict[str, str]:
    """Return this data directory's secrets, generating missing ones. Concurrent processes agree on one set."""
    path = data_dir / FILE_NAME
    stored = _read(path)
    if all(name in stored for name in NAMES):
        return stored
    complete = {name: secrets.token_urlsafe(16 if name == "admin_password" else 48) for name in NAMES} | stored
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = _written(path, json.dumps(complete, indent=1))
    if stored:
        new.replace(path)
        return complete
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(new)
    new.unlink()
    return _read(path)


def write_private(path: Path, content: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    _written(path, content).replace(path)


def _written(path: Path, content: str) -> Path:
    """Write and fsync a temporary file next to ``path``: lost secrets cannot be recovered."""
    descriptor, new = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(new)


def _read(path: Path) -> dict[str, str]:
    try:
        return cast("dict[str, str]", json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
