"""What an import could not take over as it is, line by line."""

from __future__ import annotations

from configuration.yaml_documents import Document, DocumentError


class Report:
    """Lines for the operator, each with its place in the document; the same line once."""

    def __init__(self) -> None:
        self._skipped: dict[str, None] = {}
        self._placeholders: dict[str, None] = {}
        self._conflicts: dict[str, None] = {}

    @property
    def skipped(self) -> list[str]:
        """What was left out, or imported without a part of it."""
        return list(self._skipped)

    @property
    def placeholders(self) -> list[str]:
        """What refuses calls until an operator replaces it."""
        return list(self._placeholders)

    @property
    def conflicts(self) -> list[str]:
        """What belongs to another document."""
        return list(self._conflicts)

    def skip(self, error: DocumentError) -> None:
        """Add a part of the document that means nothing here."""
        self._skipped[str(error)] = None

    def add_placeholder(self, error: DocumentError) -> None:
        """Add a part that became a placeholder."""
        self._placeholders[str(error)] = None

    def add_conflict(self, error: DocumentError) -> None:
        """Add an object that the document must not take over."""
        self._conflicts[str(error)] = None

    def nothing(self, document: Document, message: str, *path: str | int) -> DocumentError:
        """Return the error of a document of which nothing can be imported, with all that was skipped."""
        return DocumentError("\n".join(self.skipped)) if self.skipped else document.error(message, *path)

    def require_none(self, *, is_strict: bool) -> None:
        """Raise DocumentError with every conflict; with ``is_strict`` also with everything that was skipped."""
        faults = self.conflicts + (self.skipped + self.placeholders if is_strict else [])
        if faults:
            raise DocumentError("\n".join(faults))
