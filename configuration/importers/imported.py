"""The objects of the configuration that an imported document describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configuration.importers.references import Path


@dataclass(frozen=True)
class RegisteredSchema:
    """The schema of a channel's events, to be registered under the subject that the channel names."""

    type: str
    text: str
    is_named: bool
    """The document names the subject; a schema that is already registered there is then kept."""
    version: int = 1
    """The least number of the version that is registered."""
    id: int | None = None
    """The id that the schema gets, if it is free."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The ``compatibility`` and the ``mode`` of the subject."""


@dataclass(frozen=True)
class Imported:
    """One object: its section, the fields that the document determines, and its place in the document."""

    section: str
    values: dict[str, Any]
    path: Path
    registered: RegisteredSchema | None = None
