"""Validate the metadata of consumers and keys: free members that policies and functions may read."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError

MEMBERS_MAX = 50


def clean_metadata(metadata: Any) -> dict[str, Any]:
    """Return a copy of the metadata. Raises ValidationError."""
    if not isinstance(metadata, dict) or len(metadata) > MEMBERS_MAX:
        raise ValidationError({"metadata": f"Must be an object with at most {MEMBERS_MAX} members."})
    return dict(metadata)
