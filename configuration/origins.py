"""The names by which objects know the document that they were made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from configuration.importers.openapi import is_export
from configuration.importers.options import Options
from configuration.yaml_documents import Document

_TITLE_MAX_CHARS, _FILE_MAX_CHARS = 120, 100


@dataclass(frozen=True)
class Origin:
    """The document of an import: the name that its objects record, and those that it may have had before."""

    name: str
    """Empty for a document without a title, and for one that a gateway generated: it describes what others have made.
    """
    title: str = ""
    file: str = ""
    suffix: str = ""

    @classmethod
    def of(cls, document: Document, options: Options) -> Self:
        """Return the operator's name for the document, or else its title and file, each with the prefix."""
        if is_export(document.data):
            return cls("")
        info = document.data.get("info")
        title = info.get("title") if isinstance(info, dict) else None
        title = " ".join(title.split())[:_TITLE_MAX_CHARS] if isinstance(title, str) else ""
        file = Path(document.name).name[-_FILE_MAX_CHARS:]
        suffix = f" at {options.prefix}" if options.prefix else ""
        default = f"{title} ({file})" if title else ""
        name = options.document.removesuffix(suffix) or default
        return cls(f"{name}{suffix}"[:300] if name else "", title, file, suffix)

    def may_be(self, recorded: str) -> bool:
        """Return whether a recorded name has the title or the file of this document, and its prefix."""
        if not self.name or not recorded.endswith(self.suffix):
            return False
        name = recorded.removesuffix(self.suffix)
        has_title = bool(self.title) and name.startswith(f"{self.title} (")
        return has_title or name.endswith(f" ({self.file})")

    def former(self, described: Sequence[str], every: Iterable[str]) -> str:
        """Return the name under which this document was imported before its title or its file changed; empty if none.

        ``described`` are the names that the objects record which are the same as those of this document, ``every`` the
        names that all objects record. A document that made other objects than these is another one.
        """
        names = set(described)
        if len(names) != 1 or not self.may_be(name := names.pop()):
            return ""
        return name if Counter(every)[name] == len(described) else ""
