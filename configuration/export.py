"""Export the whole configuration as one YAML document; applying it changes nothing."""

from __future__ import annotations

from typing import Any

from configuration import registry_faults, registry_section
from configuration.kinds import KINDS
from configuration.yaml_documents import write


def export_sections() -> dict[str, list[dict[str, Any]]]:
    """Return every object by section, without fields that have their defaults. Keys are not exported."""
    sections = {kind.section: [kind.without_defaults(row.representation()) for row in kind.rows()] for kind in KINDS}
    return {registry_faults.SECTION: registry_section.exported(), **sections}


def export_text() -> str:
    """Return the document as text; equal configurations have equal texts."""
    return write({section: objects for section, objects in export_sections().items() if objects})
