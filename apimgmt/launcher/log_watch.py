"""Reports errors from the log files of the processes, and rotates the files."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHECK_S = 1.0
READ_MAX_BYTES = 256 * 1024
REPORTED_MAX = 3
"""Maximum number of errors reported per process and check; its log file has them all."""
SAME_AGAIN_S = 60.0
"""The same error of a process is reported once in this time."""
SEVERE = ("error", "critical")


@dataclass(slots=True)
class LogWatch:
    """Watches the log files of an `up`."""

    folder: Path
    report: Callable[[str, str], None]
    """Called with a process's name and its message."""
    file_max_bytes: int
    """A larger file is rotated; 0: none is."""
    _read_to: dict[Path, int] = field(default_factory=dict)
    _reported_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _check_at: float = 0.0

    def __post_init__(self) -> None:
        """Start at the end of each file: errors of earlier runs are not reported."""
        self._read_to = {path: path.stat().st_size for path in self.folder.glob("*.log")}

    def check(self) -> None:
        """Report new errors and rotate large files, at most once per ``CHECK_S``; may be called more often."""
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + CHECK_S
        for path in sorted(self.folder.glob("*.log")):
            self._report_errors(path)
            if 0 < self.file_max_bytes < self._read_to[path]:
                self._rotate(path)

    def _report_errors(self, path: Path) -> None:
        size, begin = path.stat().st_size, self._read_to.get(path, 0)
        if size == begin:
            self._read_to[path] = size
            return
        begin = max(begin if begin < size else 0, size - READ_MAX_BYTES)
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(size - begin)
        end = data.rfind(b"\n") + 1 or (
            len(data) if len(data) >= READ_MAX_BYTES else 0
        )  # the last line may be incomplete
        self._read_to[path] = begin + end
        errors = [text for line in data[:end].splitlines() if (text := _error(line)) is not None]
        new = [text for text in dict.fromkeys(errors) if self._is_new(path.stem, text)]
        for text in new[:REPORTED_MAX]:
            self.report(path.stem, text)
        if len(new) > REPORTED_MAX:
            self.report(path.stem, f"{len(new) - REPORTED_MAX} more errors are in {path}")

    def _is_new(self, name: str, text: str) -> bool:
        """Return whether this message, numbers aside, was not reported recently."""
        now = time.monotonic()
        self._reported_at = {reported: at for reported, at in self._reported_at.items() if now - at < SAME_AGAIN_S}
        text = re.sub(r"\d+", "", text)
        if (name, text) in self._reported_at:
            return False
        self._reported_at[name, text] = now
        return True

    def _rotate(self, path: Path) -> None:
        """Copy the file to ``.log.1`` and truncate it: the process keeps appending to the same file."""
        shutil.copyfile(path, path.with_suffix(".log.1"))
        with path.open("r+b") as file:
            file.truncate(0)
        self._read_to[path] = 0


def _error(line: bytes) -> str | None:
    """Return the message of a JSON line with the level error or critical; None for other lines."""
    if not line.startswith(b"{"):
        return None
    try:
        record = json.loads(line)
        return str(record["message"]) if record["level"] in SEVERE else None
    except (ValueError, KeyError, TypeError):
        return None
