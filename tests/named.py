"""What a document names of this repository: files, folders and tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = frozenset(path.name for path in ROOT.iterdir() if path.is_dir())
_NAMED = re.compile(r"`((\w[\w.-]*)/[\w./-]*(?:::\w+)?)`")


def named_in(page: str) -> list[str]:
    """Return what a page names as `folder/…/file`, `folder/…/file::test` or `folder/`, in order and once each."""
    return sorted({name for name, folder in _NAMED.findall(page) if folder in FOLDERS})


def is_there(named: str) -> bool:
    """Return whether a named file or folder exists, and holds the named test."""
    path, _, test = named.partition("::")
    if not (ROOT / path).exists():
        return False
    return not test or bool(re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE))
