"""The values that every database and the snapshot can store: plain JSON, without NUL, of bounded depth and size."""

from __future__ import annotations

from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.db import models

BYTES_MAX = 256 * 1024
"""The limit of one field: an object must fit into one message of NATS, whose limit is 1 MB by default."""
DEPTH_MAX = 64
_INTEGER_MAX = 2**63


def require_storable(row: models.Model) -> None:
    """Raise ValidationError for the first field whose value cannot be stored unchanged."""
    for field in row._meta.concrete_fields:
        if not isinstance(field, models.JSONField | models.CharField):
            continue
        if getattr(row, field.attname) is None and not field.null:
            raise ValidationError({field.name: "Must not be null."})
        try:
            require_plain(getattr(row, field.attname))
            if len(orjson.dumps(getattr(row, field.attname))) > BYTES_MAX:
                raise ValueError(f"Must be at most {BYTES_MAX} bytes of JSON.")
        except (TypeError, ValueError) as error:
            raise ValidationError({field.name: str(error)}) from None


def require_plain(value: Any, depth_left: int = DEPTH_MAX) -> None:
    """Raise ValueError or TypeError for a value that is not plain JSON, or nested too deep."""
    if depth_left < 0:
        raise ValueError(f"Must not be nested more than {DEPTH_MAX} levels deep.")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError("Names of members must be strings.")
            _check_text(name)
            require_plain(member, depth_left - 1)
    elif isinstance(value, list | tuple):
        for member in value:
            require_plain(member, depth_left - 1)
    else:
        _check_plain(value)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValueError("Must not contain the character NUL.")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("Must be well-formed Unicode.")


def _check_plain(value: Any) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("Must not contain NaN or infinity.")
        if abs(value) >= _INTEGER_MAX:
            # PostgreSQL would return 1e22 as an integer, which orjson and many clients cannot parse.
            raise ValueError("Must not contain a number of 2^63 or more.")
    elif not isinstance(value, int):
        raise TypeError(f"{type(value).__name__} is not JSON.")
    elif abs(value) > _INTEGER_MAX:
        raise ValueError("Must not contain an integer of more than 64 bits.")
