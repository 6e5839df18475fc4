"""The whole configuration as one YAML document; applying it again changes nothing."""

from __future__ import annotations

from typing import Any

from configuration.kinds import KINDS
from configuration.yaml_documents import write


def exported() -> dict[str, list[dict[str, Any]]]:
    """Give every object by its section, without what the defaults say already. Keys and their digests stay here."""
    return {kind.section: [kind.without_defaults(row.representation()) for row in kind.rows()] for kind in KINDS}


def export_text() -> str:
    """Give the document as text: the same configuration is always the same text."""
    return write({section: objects for section, objects in exported().items() if objects})
