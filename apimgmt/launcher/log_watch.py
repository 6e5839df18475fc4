"""Tells the terminal of errors that processes have logged, and bounds their files."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LOOK_S = 1.0
READ_MAX_BYTES = 256 * 1024
FILE_MAX_BYTES = 16 * 1024 * 1024
TOLD_MAX = 3
"""So many errors are told of one process at one look; its file has them all."""
SAME_AGAIN_S = 60.0
"""What a process says again and again is told once in this time."""
SEVERE = ("error", "critical")


@dataclass(slots=True)
class LogWatch:
    """The log files of one `up`."""

    folder: Path
    tell: Callable[[str, str], None]
    """Called with a process's name and what it said."""
    _read_to: dict[Path, int] = field(default_factory=dict)
    _told_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _look_at: float = 0.0

    def __post_init__(self) -> None:
        """Begin at the end: what earlier runs have logged is no news."""
        self._read_to = {path: path.stat().st_size for path in self.folder.glob("*.log")}

    def look(self) -> None:
        """Tell what is new, once in a while. To be called often."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        for path in sorted(self.folder.glob("*.log")):
            self._tell_of(path)
            if self._read_to[path] > FILE_MAX_BYTES:
                self._begin_anew(path)

    def _tell_of(self, path: Path) -> None:
        size, begin = path.stat().st_size, self._read_to.get(path, 0)
        if size == begin:
            self._read_to[path] = size
            return
        begin = max(begin if begin < size else 0, size - READ_MAX_BYTES)
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(size - begin)
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) >= READ_MAX_BYTES else 0)  # a line may be half written
        self._read_to[path] = begin + end
        errors = [said for line in data[:end].splitlines() if (said := _error(line)) is not None]
        news = [said for said in dict.fromkeys(errors) if self._is_news(path.stem, said)]
        for said in news[:TOLD_MAX]:
            self.tell(path.stem, said)
        if len(news) > TOLD_MAX:
            self.tell(path.stem, f"{len(news) - TOLD_MAX} more errors are in {path}")

    def _is_news(self, name: str, said: str) -> bool:
        """Say whether this was not told a short while ago; numbers in it make no difference."""
        now = time.monotonic()
        self._told_at = {told: at for told, at in self._told_at.items() if now - at < SAME_AGAIN_S}
        said = re.sub(r"\d+", "", said)
        if (name, said) in self._told_at:
            return False
        self._told_at[name, said] = now
        return True

    def _begin_anew(self, path: Path) -> None:
        """Keep one file of old lines; the process goes on writing to the same file, at its end, which is its begin."""
        shutil.copyfile(path, path.with_suffix(".log.1"))
        with path.open("r+b") as file:
            file.truncate(0)
        self._read_to[path] = 0


def _error(line: bytes) -> str | None:
    """Give the message of a JSON line that tells of an error."""
    if not line.startswith(b"{"):
        return None
    try:
        said = json.loads(line)
        return str(said["message"]) if said["level"] in SEVERE else None
    except (ValueError, KeyError, TypeError):
        return None
