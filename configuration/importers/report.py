"""What an import could not take over as it is, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

from configuration.yaml_documents import Document, DocumentError


@dataclass
class Report:
    """Lines for the operator, each with its place in the document; the same line once."""

    skipped: list[str] = field(default_factory=list)
    """What was left out, or imported without a part of it."""
    placeholders: list[str] = field(default_factory=list)
    """What refuses calls until an operator replaces it."""
    conflicts: list[str] = field(default_factory=list)
    """What belongs to another document."""

    def skip(self, error: DocumentError) -> None:
        """Add a part of the document that means nothing here."""
        _add(self.skipped, str(error))

    def add_placeholder(self, error: DocumentError) -> None:
        """Add a part that became a placeholder."""
        _add(self.placeholders, str(error))

    def add_conflict(self, error: DocumentError) -> None:
        """Add an object that the document must not take over."""
        _add(self.conflicts, str(error))

    def nothing(self, document: Document, message: str, *path: str | int) -> DocumentError:
        """Return the error of a document of which nothing can be imported, with all that was skipped."""
        return DocumentError("\n".join(self.skipped)) if self.skipped else document.error(message, *path)

    def require_none(self, *, is_strict: bool) -> None:
        """Raise DocumentError with every conflict; with ``is_strict`` also with everything that was skipped."""
        faults = self.conflicts + (self.skipped + self.placeholders if is_strict else [])
        if faults:
            raise DocumentError("\n".join(faults))


def _add(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)
