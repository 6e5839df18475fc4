"""Files of changes that left the audit log: JSON Lines, compressed with gzip, with checksums; never written twice."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.configured import rfc3339
from audit.models import Change
from audit.services import without_hidden

CHECKSUMS = "SHA256SUMS"
"""The list of all files, in the order in which they were written; `sha256sum -c` checks them."""
PARTIAL = ".partial"
"""A file that is being written; of a write that failed, the next one deletes it."""


def export(changes: Sequence[Change], folder: Path) -> str:
    """Write changes to a file of their own and return its name; both are on disk before this returns.

    The name follows from the content. A file that exists was written before a failure, and is left as it is.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = gzip.compress(b"".join(_line(change) for change in changes), mtime=0)
    checksum = hashlib.sha256(data).hexdigest()
    name = f"audit-{changes[0].pk:012}-{changes[-1].pk:012}-{checksum[:12]}.jsonl.gz"
    path = folder / name
    if not path.exists():
        partial = folder / PARTIAL
        partial.unlink(missing_ok=True)
        _write(partial, data, os.O_EXCL)
        partial.chmod(0o400)
        partial.rename(path)
    _list(folder / CHECKSUMS, f"{checksum}  {name}\n".encode())
    _sync_folder(folder)
    return name


def _list(checksums: Path, line: bytes) -> None:
    """Append a line to the list unless it is there; after a line that a crash cut off, begin a new one."""
    listed = checksums.read_bytes() if checksums.exists() else b""
    if line not in listed:
        is_cut_off = listed and not listed.endswith(b"\n")
        _write(checksums, b"\n" + line if is_cut_off else line, os.O_APPEND)


def _line(change: Change) -> bytes:
    fields: dict[str, Any] = {
        "id": change.pk,
        "at": rfc3339(change.at),
        "actor": change.actor,
        "kind": change.kind,
        "name": change.name,
        "action": change.action,
        "before": without_hidden(change.before),
        "after": without_hidden(change.after),
        "note": change.note,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write(path: Path, data: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
