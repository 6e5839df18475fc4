"""Secrets that are made once for a data directory and never printed: ``secrets.json``, mode 0600."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
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
    if known:
        write_private(path, json.dumps(made, indent=1))
        return made
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(made, file, indent=1)
    return _read(path)


def write_private(path: Path, content: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    new.replace(path)


def _read(path: Path) -> dict[str, str]:
    try:
        return cast("dict[str, str]", json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
