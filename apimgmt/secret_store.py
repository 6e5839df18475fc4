"""Secrets that are made once for a data directory and never printed: ``secrets.json``, mode 0600."""

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
def load_or_make(data_dir: Path) -> dict[str, str]:
    """Give this data directory's secrets; make those that are missing. Two processes at once agree on the first's."""
    path = data_dir / FILE_NAME
    known = _read(path)
    if all(name in known for name in NAMES):
        return known
    made = {name: secrets.token_urlsafe(16 if name == "admin_password" else 48) for name in NAMES} | known
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = _written(path, json.dumps(made, indent=1))
    if known:
        new.replace(path)
        return made
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(new)
    new.unlink()
    return _read(path)


def write_private(path: Path, content: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    _written(path, content).replace(path)


def _written(path: Path, content: str) -> Path:
    """Write what a file will hold beside it, down to the disk: what is lost here cannot be made again."""
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
